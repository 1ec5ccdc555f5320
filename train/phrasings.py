"""More ways to ask, by the name of the pattern: what makes the model hear what is meant rather than how it is put."""

from __future__ import annotations

MORE: dict[str, tuple[str, ...]] = {
    # time, dates, numbers
    "time_now": (
        "Tell me what time it is.", "Have you got the time?", "What does the clock say?", "I need the time, please.",
    ),
    "date_now": (
        "Tell me what day it is.", "I need today's date.", "What date do we have today?", "What's the date?",
    ),
    "time_later": (
        "Now it is {hour}. What time is it {hours} later?", "The clock says {hour}. How late is it in {hours}?",
        "{hour} plus {hours}, what time is that?", "What will the clock say in {hours} if it says {hour} now?",
    ),
    "time_earlier": (
        "Now it is {hour}. What time was it {hours} earlier?", "The clock says {hour}. What did it say {hours} ago?",
        "{hour} minus {hours}, what time is that?", "It's {hour}. How late was it {hours} ago?",
    ),
    "meeting_end": (
        "When is a meeting over that begins at {hour} and takes {minutes}?",
        "A film starts at {hour} and runs {minutes}. Until when?",
        "It lasts {minutes} and begins at {hour}. Tell me when it ends.",
        "At {hour} we start, and it takes {minutes}. When do we finish?",
    ),
    "weekday_after": (
        "What weekday is it {days} after {day}?", "We have {day}. Tell me the day in {days}.",
        "{day} plus {days}, what day is that?", "Now it's {day}. And in {days}?",
        "Count {days} on from {day}. Which day is that?", "Say which day is {days} from {day}.",
        "{day} now, and {days} later?", "Do you know the day {days} past {day}?",
    ),
    "month_after": (
        "We have {month}. Tell me the month in {months}.", "{month} plus {months}, what month is that?",
        "Now it's {month}. And in {months}?", "What is the month {months} after {month}?",
        "Count {months} on from {month}. Which month is that?", "Say which month is {months} from {month}.",
        "{month} now, and {months} later?", "Do you know the month {months} past {month}?",
    ),
    "days_in_month": (
        "{month}, how many days is that?", "Count the days of {month}.", "Can you tell me how long {month} is?",
        "How many days are there in {month}?",
    ),
    "date_tomorrow": (
        "We have {month} {date} today. And tomorrow?", "What comes after {month} {date}?",
        "Tell me the date after {month} {date}.", "Tomorrow, what date is it, when today is {month} {date}?",
        "If it is {month} {date}, what date do we have tomorrow?",
        "Can you say the date after {month} {date}?", "It is {month} {date}. Tell me tomorrow's date.",
        "{month} {date} and one day more, what is that?", "When today is {month} {date}, what is the next date?",
    ),
    "date_yesterday": (
        "We have {month} {date} today. And yesterday?", "What comes before {month} {date}?",
        "Tell me the date before {month} {date}.", "Yesterday, what date was it, when today is {month} {date}?",
        "If it is {month} {date}, what date did we have yesterday?",
    ),
    "add": (
        "{a} plus {b}, please.", "Add {b} to {a}.", "I have {a} and get {b} more. How much is that?",
        "Work out {a} plus {b}.", "{a} and {b} together, what is that?",
        "Let me know what {a} plus {b} is.", "Take {a}, then add {b}.", "Do you know {a} plus {b}?",
        "Could you work out {a} and {b} more?",
    ),
    "subtract": (
        "{a} minus {b}, please.", "Subtract {b} from {a}.", "I have {a} and give away {b}. How many are left?",
        "Work out {a} minus {b}.", "Take away {b} from {a}.",
        "Let me know what {a} minus {b} is.", "Take {a}, then subtract {b}.", "Do you know {a} minus {b}?",
        "Start at {a} and go down by {b}.", "Could you work out {a} less {b}?",
    ),
    "compare": (
        "What is bigger, {a} or {b}?", "Is {a} more or {b}?", "{a} or {b}, which is the larger one?",
        "Compare {a} and {b}.", "Which one is larger, {a} or {b}?",
        "Say which one is more, {a} or {b}.", "Do you know which is bigger, {a} or {b}?",
        "I have {a} and {b}. Which is more?", "Find the larger number, {a} or {b}.",
        "Between {a} and {b}, what is larger?",
    ),
    "neighbour": (
        "The number {side} {number}, please.", "Say what comes {side} {number}.", "Which one is {side} {number}?",
        "What number do I find {side} {number}?",
        "Do you know which number is {side} {number}?", "I need the number {side} {number}.",
        "Look {side} {number}. Which number is there?", "Can you say the one {side} {number}?",
        "Count one {side} {number}.",
    ),
    "even_or_odd": (
        "Even or odd: {number}?", "Can you say if {number} is odd or even?", "I want to know if {number} is even.",
        "Would you call {number} odd or even?",
    ),
    "say_number": (
        "Speak the number {number}.", "{number}, please say that.", "Let me hear {number}.", "Pronounce {number}.",
    ),
    "add_then_more": (
        "Plus another {c}.", "Then add {c}.", "Put {c} on top.", "And with {c} more?",
        "Could you add {c} to that?", "And then {c} on top?", "How much with {c} more?", "Let me add {c}, too.",
    ),
    # places
    "room_floor": (
        "Room {room}, which floor?", "I need to get to room {room}.", "Can you tell me where room {room} is?",
        "Do you know the floor of room {room}?",
    ),
    "room_side": (
        "Room {room}, left or right?", "Can you tell me the side of room {room}?",
        "Is it left or right to room {room}?", "Where do I turn for room {room}?",
    ),
    "place_floor": (
        "Can you tell me which floor the {place} is on?", "To which floor do I go for the {place}?",
        "The floor of the {place}, please.", "What floor do I need for the {place}?",
        "Do you know the floor the {place} is on?", "I look for the {place}. Which floor?",
        "Say which floor the {place} is on.", "How many floors up is the {place}?",
    ),
    "place_where": (
        "Can you tell me where the {place} is?", "I need to find the {place}.", "Where exactly is the {place}?",
        "The {place}, where is that?",
    ),
    "between_places": (
        "I want to go from the {start} to the {goal}. How?", "From the {start}, how do I get to the {goal}?",
        "Tell me the way to the {goal} from the {start}.", "I stand at the {start}. Where is the {goal} from here?",
        "Can you tell me the way from the {start} to the {goal}?", "Starting at the {start}, where is the {goal}?",
        "I go to the {goal} from the {start}. Which way?", "Let me know how to get from the {start} to the {goal}.",
        "At the {start} now, going to the {goal}. How?",
    ),
    "between_floors": (
        "I am on floor {a}. How many floors to floor {b}?", "How far is floor {b} from floor {a}?",
        "I want to go to floor {b} from floor {a}. How many floors is that?", "Floor {a} to floor {b}, how far?",
    ),
    "facility": (
        "Do you have {one}?", "I am looking for {one}.", "Show me the nearest {thing}.", "Where is there {one}?",
    ),
    "rule": ("Could I {deed}?", "Is it allowed to {deed}?", "Do you mind if I {deed}?", "Would you let me {deed}?"),
    "bus": (
        "Tell me where bus {line} goes.", "Bus {line}, where to?", "I take bus {line}. Where do I end up?",
        "What is the destination of bus {line}?",
    ),
    "opening": (
        "Tell me when the {place} opens on {day}.", "The {place}, when does it open on {day}?",
        "From what time is the {place} open on {day}?", "Since when on {day} can I visit the {place}?",
        "Do you know when the {place} opens on {day}?", "At what hour can I go to the {place} on {day}?",
        "Say when the {place} opens on {day}.", "When can I first visit the {place} on {day}?",
    ),
    "closing": (
        "Tell me when the {place} closes on {day}.", "The {place}, when does it close on {day}?",
        "At what time do you close the {place} on {day}?", "How long is the {place} open on {day}?",
        "From what time is the {place} closed on {day}?", "Do you know when the {place} closes on {day}?",
        "Till when on {day} can I go to the {place}?", "When is the {place} over on {day}?",
        "How long can I stay in the {place} on {day}?",
    ),
    "is_open": (
        "Do you have the {place} open on {day} at {hour}?", "I come at {hour} on {day}. Is the {place} open then?",
        "The {place}, is it open on {day} at {hour}?",
        "Can I go to the {place} on {day} at {hour}?",
    ),
    "price": (
        "Can you tell me the price of {order}?", "{order}, how much is that?", "I take {order}. What does that cost?",
        "I want to buy {order}. How much do I pay?",
    ),
    "change": (
        "I give you {note} for {item}. How much comes back?", "Take {note} for {item}. What is the change?",
        "Tell me the change for {item} from {note}.", "I have {note} and buy {item}. How much is left?",
    ),
    "two_items": (
        "Tell me the price of {a} and {b}.", "{a} and {b}, how much is that?",
        "I want to buy {a} and {b}. What does that cost?", "How much do I pay for {a} and {b}?",
        "Give me {a} and {b}. What is the price?", "Can you tell me what {a} and {b} cost?",
        "{a} and also {b}, what is the price?", "I pay for {a} and {b}. How much?",
        "With {a} and {b}, how much is it all together?",
    ),
    "tickets": (
        "Tell me the price of {order}.", "{order}, please. How much is that?",
        "I want to buy {order}. What does that cost?", "How much do I pay for {order}?",
    ),
    "place_then_way": (
        "Where do I find it there?", "And from there?", "Tell me the way, please.", "How do I go there?",
        "What is the way?", "And how do I go?", "Can you say where it is on that floor?", "Which way do I go there?",
    ),
    "place_then_other": (
        "Tell me about the {other}, too.", "The same for the {other}, please.", "And where is the {other}?",
        "Then the {other}?",
        "Do you know about the {other}?", "And now the {other}?", "What of the {other}?", "I also need the {other}.",
    ),
    "opening_then_closing": (
        "When is it over?", "And closing time?", "And till when is it open?", "Tell me when it closes, too.",
        "And how long is it open?", "Up to when can I come?", "And at what time is it over?", "Until what time?",
        "When do they close?",
    ),
    "opening_then_day": (
        "Then on {other}?", "Tell me for {other}, too.", "And what about {other}?", "When is it on {other}?",
        "I could also come on {other}.", "And if I come on {other}?", "Do you know it for {other}?",
        "Now {other}, please.",
    ),
    "price_then_count": (
        "Then {number}?", "And for {number} of them?", "Make it {number}. How much then?",
        "And the price of {number}?",
        "And with {number}?", "I want {number}, how much?", "Say the price for {number}.", "What if it is {number}?",
    ),
    "room_then_guide": (
        "Bring me there, please.", "Can you take me to it?", "I want to go there with you.", "Lead the way.",
        "Walk there with me.", "Could you show me where it is?", "Please go there with me.",
        "Can we go there together?", "You go first, I follow.",
    ),
    "room_then_again": (
        "Say it again, please.", "I did not get that.", "Could you say that once more?", "Again, please.",
        "What was that?", "I did not hear that.", "Tell me again.", "Come again?", "Say that one more time.",
        "I missed that.",
    ),
    # robot
    "drive": (
        "Make it {meters} {direction}.", "Please go {direction} {meters}.", "Roll {direction} for {meters}.",
        "Could you move {meters} {direction}?",
        "I would like you to go {direction} {meters}.", "{direction} for {meters}, please.",
        "You should drive {direction} {meters}.", "Now go {meters} {direction}.",
    ),
    "turn": (
        "Make a turn of {degrees} degrees to the {side}.", "Please rotate {side} by {degrees} degrees.",
        "Could you turn {degrees} degrees {side}?", "Spin {degrees} degrees to the {side}.",
    ),
    "stop": ("Halt.", "Do stop.", "Stop it now.", "Stand still.", "Do not go on."),
    "go_home": (
        "Drive home.", "You should charge now.", "Go to your station.", "Please go and charge.",
        "Your battery is low, go home.",
    ),
    "guide": (
        "Could you bring me to the {place}?", "Walk me to the {place}.", "Let us go to the {place}.",
        "I need to get to the {place}, take me there.",
        "I would like to go to the {place}, bring me there.", "Please walk with me to the {place}.",
        "Come with me to the {place}.", "I want you to take me to the {place}.",
    ),
    "elevator": (
        "Could you call the elevator to the {floor} floor?", "Make the elevator come to the {floor} floor.",
        "Elevator, {floor} floor.", "Let the elevator come to the {floor} floor.",
        "Bring me the elevator on the {floor} floor.", "I want the elevator to come to the {floor} floor.",
        "The elevator should come to the {floor} floor.", "Have the elevator sent to the {floor} floor.",
    ),
    "lamp": (
        "Lamp in the {room} {state}, please.", "Could you switch the {room} lamp {state}?",
        "Put the {room} lamp {state}.", "I want the {room} lamp {state}.",
    ),
    "lamp_color": (
        "Could you make the lamp in the {room} {color}?", "Turn the lamp in the {room} to {color}.",
        "Give the {room} lamp a {color} light.", "The {room} lamp should be {color}.",
        "I would like the {room} lamp to be {color}.", "A {color} lamp in the {room}, please.",
        "Let the lamp in the {room} be {color}.", "The light in the {room} should be {color}.",
        "Can I have the {room} lamp in {color}?",
    ),
    "dim": (
        "Put the {room} lamp at {percent} percent.", "Could you dim the {room} lamp to {percent} percent?",
        "Turn the {room} lamp to {percent} percent.", "The {room} lamp to {percent} percent, please.",
    ),
    "heat": (
        "Put the {room} at {degrees} degrees.", "Could you set the {room} to {degrees} degrees?",
        "{room} to {degrees} degrees, please.", "Turn the {room} to {degrees} degrees.",
    ),
    "open_close": (
        "The {thing} in the {room}, {action} it, please.", "Would you {action} the {room} {thing}?",
        "{action} the {thing} of the {room}, please.", "Go and {action} the {room} {thing}.",
    ),
    "volume": (
        "Make the volume {level}.", "Could you set the volume to {level}?", "Volume to {level}.",
        "Put the sound at {level}.",
    ),
    "volume_step": (
        "Could you turn the volume {way} by {steps}?", "Make the volume go {way} by {steps}.",
        "{steps} {way}, please.", "Take the volume {way} by {steps}.",
        "I want the volume {way} by {steps}.", "The volume should go {way} by {steps}.",
        "Let the volume go {way} by {steps}.", "Bring the volume {way} by {steps}.",
    ),
    "mute": ("Turn the sound off.", "Not a word, please.", "Shut off the sound.", "I want you to be quiet."),
    "timer": (
        "Could you set a timer for {span}?", "Put a timer on {span}.", "Give me {span} on the timer.",
        "Timer, {span}.",
    ),
    "alarm": (
        "Could you wake me at {time}?", "Put the alarm on {time}.", "I want to be woken at {time}.",
        "Alarm for {time}.",
    ),
    "cancel": (
        "Could you cancel the {thing}?", "Call off the {thing}.", "Drop the {thing}, please.", "No {thing}, please.",
    ),
    "remind": (
        "Tell me to {deed} in {minutes}.", "Could you remind me in {minutes} to {deed}?",
        "Set a reminder in {minutes}: {deed}.", "I have to {deed}, remind me in {minutes}.",
    ),
    "music": (
        "Some {genre} music, please.", "Start the {genre} music.", "Let me hear {genre} music.",
        "I would like {genre} music.",
        "What about {genre} music?", "{genre} music would be nice.", "Turn on some {genre} music.",
        "Do you have {genre} music for me?", "We want {genre} music.",
    ),
    "phone": (
        "Could you phone {person}?", "Ring {person}, please.", "I need to speak to {person}.",
        "Make a call to {person}.",
        "Put me through to {person}.", "I would like to talk to {person}.", "Give {person} a call.",
        "Let me talk to {person} on the phone.",
    ),
    "send": (
        "Could you send a {person} to the {place}?", "A {person} to the {place}, please.",
        "I want a {person} in the {place}.", "Let a {person} come to the {place}.",
        "They need a {person} in the {place}.", "Please get a {person} to the {place}.",
        "In the {place} we want a {person}.", "Somebody call a {person} to the {place}.",
    ),
    "bring": (
        "Could you bring the {load} to the {room}?", "Take the {load} to the {room}, please.",
        "The {load} should go to the {room}.", "I want the {load} in the {room}.",
        "Please put the {load} into the {room}.", "Get the {load} over to the {room}.",
        "The {load} must be in the {room}. Take it there.", "In the {room} I need the {load}.",
        "Move the {load} to the {room}.", "Would you carry the {load} into the {room}?",
    ),
    "drive_then_back": (
        "Come back now.", "Drive back the same way.", "Reverse that, please.", "The same way back.",
        "Get back again, please.", "Return to where you were.", "And the same distance back.", "Now go back.",
        "Turn that around and come back.",
    ),
    "lamp_then_other_state": (
        "Change that back.", "I did not want that, turn it back.", "Back to how it was.", "Please undo it.",
        "That was not right, undo it.", "I changed my mind, undo that.", "Put it back as it was.",
        "The other way around, please.", "Take that back.",
    ),
    "lamp_then_color": (
        "Then make it {color}.", "It should be {color}.", "Can you make it {color}?", "Turn it {color}.",
        "I would like it to be {color}.", "{color}, please.", "Let it be {color}.", "Give it {color} light.",
    ),
    "volume_then_louder": (
        "Can you be a bit {way}?", "Now a bit {way}.", "Go a little {way}.", "Make that {way}.",
        "I want it a bit {way}.", "Could it be {way}?", "Bring it a bit {way}.", "It should be {way}.",
    ),
    "timer_then_longer": (
        "Then {more} more.", "Give it {more} more.", "Could you add {more}?", "Let it run {more} longer.",
        "I need {more} more.", "Make that {more} more.", "Put {more} on top.", "Let me have {more} more.",
    ),
    "heat_then_warmer": (
        "Can you make it a bit {way}?", "Now a degree {way}.", "Make it {way}, please.", "Just one degree {way}.",
        "I would like it {way}.", "A degree {way} would be good.", "Put it one degree {way}.", "Let it be a bit {way}.",
    ),
    # talk
    "hello": ("Hey.", "Hello to you.", "Hi, robot.", "Well, hello.", "Hello, anybody there?"),
    "greeting": ("Hi, good {part}.", "Have a good {part}.", "Good {part}, how nice.", "Good {part} there."),
    "goodbye": ("Bye for today.", "So long.", "I must go, goodbye.", "Till next time.", "I'm off now, bye."),
    "thanks": ("Thanks so much.", "I thank you.", "How nice, thank you.", "Great, thanks."),
    "how_are_you": ("Are you fine?", "How do you feel today?", "How are you doing?", "Is everything all right?"),
    "your_name": ("Do you have a name?", "Can you tell me your name?", "What should I call you?", "Say your name."),
    "robot": ("Are you made of metal?", "Am I talking to a machine?", "Is this a robot?", "Are you alive?"),
    "skills": ("Tell me what you can do.", "What do you do here?", "What are you able to do?", "What can I ask you?"),
    "joke": ("Do you have a joke for me?", "I need a laugh.", "Let me hear a joke.", "Be funny."),
    "bored": ("I don't know what to do.", "How boring.", "Nothing to do here.", "I am so bored."),
    "hungry": ("Where do I get food?", "I want some food.", "I could eat something.", "I am very hungry."),
    "praise": ("You did well.", "Nice work.", "You are really good.", "That was helpful."),
    "emergency": (
        "It is burning.", "We need help, it is an emergency.", "Someone is injured.", "I need a doctor, quick.",
    ),
    "introduction": ("I'm {name}.", "Hey, my name is {name}.", "{name} is my name.", "People call me {name}."),
    "favorite_color": (
        "{color} is the best color.", "I really like {color}.", "My best color is {color}.",
        "For me it is {color}, I love that color.",
    ),
    "introduction_then_name": (
        "Do you know who I am?", "Can you say my name?", "My name, do you know it?", "What did I say my name was?",
        "Say my name.", "Do you still know my name?", "Did I tell you my name?", "Can you tell who I am?",
    ),
    "introduction_then_bye": ("So long.", "Bye for today.", "I must go, goodbye.", "Till next time."),
    "color_then_recall": (
        "Do you know my favorite color?", "Say which color I like.", "My color, do you know it?",
        "What was my favorite color?",
        "Do you still know my color?", "Say my favorite color.", "Which one was my color?",
        "Can you tell which color I like?",
    ),
}  # fmt: skip
