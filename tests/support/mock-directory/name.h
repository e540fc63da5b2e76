/* name: texts without regard to case, and distinguished names (RFC 4514) in the one form by which they are compared. Pure; the locale C.UTF-8 must be set. */
#ifndef MOCK_DIRECTORY_NAME_H
#define MOCK_DIRECTORY_NAME_H

#include "values.h"

/* Reads one code point of UTF-8; a stray octet counts as itself. Advances *at. */
uint32_t text_next(const char **at, const char *end);
/* Lower case of a UTF-8 text; allocated in the arena, NUL-terminated. */
struct value text_fold(struct arena *arena, struct value text);
bool text_equal(struct arena *arena, struct value a, struct value b);

/* The name folded: types and values in lower case, every special character of a value as \hh, no blanks around separators; so the first ',' ends the
 * first component. "" for an empty name; NULL where the syntax is wrong. In the arena. */
char *name_fold(struct arena *arena, struct value name);
/* A value as Active Directory writes it inside a name: "Last\, First". */
char *name_escape(struct arena *arena, const char *value);
/* The folded name's parent: behind its first ','; "" at the end. */
const char *name_parent(const char *folded);
bool name_is_below(const char *folded, const char *folded_base); /* or the same */

#endif
