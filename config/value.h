/* value: one configured value from text and back. Private to config. */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include "config/config.h"

/* Judges `text` by the row's kind, range and choices and stores it at `member`. NULL, or a malloc'ed sentence that says what is wrong and what would be right.
 * Scalars only. `folder` is absolute and ends in a slash; *ret_memory turns true when memory is out. */
char *value_parse(const struct config_key *key, const char *text, size_t size, const char *folder, void *member, bool *ret_memory);
/* As it would be written; a malloc'ed string. NULL: not set, or no memory. */
char *value_format(const struct config_key *key, const void *member);
/* For a list of strings. */
bool text_is_clean(const char *text, size_t size);

#endif
