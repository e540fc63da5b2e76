/* letters: what kind of letter a code point is and its lower case, without a locale: the C library's depends on which locales are installed. */
#ifndef AGENT_GATE_LETTERS_H
#define AGENT_GATE_LETTERS_H

#include <stdint.h>

/* CLASS_UPPER, CLASS_LOWER, CLASS_OTHER (alphabetic, neither upper nor lower), or 0 for what is no letter. */
unsigned letter_class(uint32_t code_point);
/* Unicode's simple lower-case mapping; the code point itself where it has none. */
uint32_t letter_fold(uint32_t code_point);

#endif
