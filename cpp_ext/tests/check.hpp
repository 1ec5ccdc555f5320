#pragma once

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            std::cerr << __FILE__ << ":" << __LINE__ << ": " << #condition << " is false\n"; \
            std::exit(1);                                                                    \
        }                                                                                    \
    } while (false)

// True when action throws Error with `part` in its sentence.
template <class Error, class Action>
bool throws(Action action, const std::string& part) {
    try {
        action();
    } catch (const Error& error) {
        if (std::string(error.what()).find(part) != std::string::npos) return true;
        std::cerr << "the sentence was: " << error.what() << "\n";
    }
    return false;
}
