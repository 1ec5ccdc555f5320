"""Intents of small talk: greetings, names, thanks, questions about the assistant."""

from __future__ import annotations

from .intent import Intent, follow_up, intent
from .place import COLORS, NAMES

INTRODUCTION = intent(
    "introduction", {"name": NAMES},
    ("My name is {name}.", "I am {name}.", "Hello, I am {name}.", "Hi, my name is {name}.", "You can call me {name}."),
    ("They call me {name}.", "Good to see you, I am {name}."),
    lambda name: f"Nice to meet you, {name}.",
)  # fmt: skip
FAVORITE_COLOR = intent(
    "favorite_color", {"color": COLORS},
    ("My favorite color is {color}.", "I like the color {color}.", "I love {color}.", "{color} is my favorite color."),
    ("The color I like best is {color}.", "For me {color} is the best color."),
    lambda color: f"{color.capitalize()} is a lovely color.",
)  # fmt: skip
INTENTS: tuple[Intent, ...] = (
    intent(
        "hello", {},
        ("Hello.", "Hello there.", "Hi.", "Hey there.", "Hi there."),
        ("Hey, hello.", "Hello, robot."),
        lambda: "Hello, how can I help you?",
    ),
    intent(
        "greeting", {"part": ("morning", "afternoon", "evening")},
        ("Good {part}.", "Good {part} to you.", "Hello, good {part}.", "A very good {part}."),
        ("I wish you a good {part}.", "Good {part}, robot."),
        lambda part: f"Good {part}, how can I help you?",
    ),
    intent(
        "goodbye", {},
        ("Goodbye.", "Bye.", "See you later.", "Bye bye.", "See you tomorrow.", "I have to go now."),
        ("Goodbye for now.", "I am leaving, bye."),
        lambda: "Goodbye, have a nice day.",
    ),
    intent(
        "thanks", {},
        ("Thank you.", "Thanks.", "Thank you very much.", "Thanks a lot.", "Many thanks."),
        ("Thank you so much.", "Oh, thanks."),
        lambda: "You are welcome.",
    ),
    intent(
        "how_are_you", {},
        ("How are you?", "How are you today?", "How do you do?", "How is it going?", "Are you well?"),
        ("How are things?", "Is everything well with you?"),
        lambda: "I am fine, thank you.",
    ),
    intent(
        "your_name", {},
        ("What is your name?", "Who are you?", "What's your name?", "What are you called?", "Tell me your name."),
        ("May I ask your name?", "How do people call you?"),
        lambda: "My name is Nano.",
    ),
    intent(
        "robot", {},
        ("Are you a robot?", "Are you a machine?", "Are you real?", "Are you a human?", "Are you a person?"),
        ("Is this a machine that talks?", "You are a robot, right?"),
        lambda: "Yes, I am a small robot.",
    ),
    intent(
        "skills", {},
        ("What can you do?", "How can you help me?", "What are you good at?", "What do you know?", "Can you help me?"),
        ("What are your skills?", "In what way can you help?"),
        lambda: "I know the building, the prices and the time.",
    ),
    intent(
        "joke", {},
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny.", "A joke, please."),
        ("Can you tell a joke?", "I want to hear a joke."),
        lambda: "Why was the robot tired? It had a hard drive.",
    ),
    intent(
        "bored", {},
        ("I am bored.", "This is boring.", "I have nothing to do.", "What should I do now?", "It is so boring here."),
        ("I feel bored.", "Nothing happens here."),
        lambda: "How about a visit to the museum?",
    ),
    intent(
        "hungry", {},
        ("I am hungry.", "I want to eat something.", "Where can I eat?", "I need some food.", "Is there food here?"),
        ("I feel hungry.", "Can I eat somewhere?"),
        lambda: "The cafeteria has soup and salad.",
    ),
    intent(
        "praise", {},
        ("Well done.", "You are great.", "Good job.", "That was good.", "You are very helpful."),
        ("Very good.", "Great job."),
        lambda: "Thank you, I do my best.",
    ),
    intent(
        "emergency", {},
        ("Help, this is an emergency.", "There is a fire.", "I see smoke.", "Somebody is hurt.", "Call an ambulance."),
        ("Help, there is smoke.", "Somebody needs a doctor."),
        lambda: "Stay calm, help is on the way.",
    ),
    INTRODUCTION,
    FAVORITE_COLOR,
    follow_up(
        "introduction_then_name", INTRODUCTION, {},
        ("What is my name?", "Do you remember my name?", "Who am I?", "What am I called?"),
        ("Tell me who I am.", "Did you forget my name?"),
        lambda name: f"Your name is {name}.", inferable=False,
    ),
    follow_up(
        "introduction_then_bye", INTRODUCTION, {},
        ("Goodbye.", "Bye.", "See you later.", "I have to go now."),
        ("Goodbye for now.", "I am leaving, bye."),
        lambda name: f"Goodbye, {name}.", inferable=True,
    ),
    follow_up(
        "color_then_recall", FAVORITE_COLOR, {},
        ("Which color do I like?", "What is my favorite color?", "Do you remember my color?", "Which color was it?"),
        ("Tell me my favorite color.", "What color did I say?"),
        lambda color: f"You like {color}.", inferable=False,
    ),
)  # fmt: skip
