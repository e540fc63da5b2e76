/* values: memory of one operation, and lists of attribute values in it. Everything taken lives until arena_reset. */
#ifndef MOCK_DIRECTORY_VALUES_H
#define MOCK_DIRECTORY_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena {
	struct arena_block *first, *current;
};
void *arena_take(struct arena *arena, size_t size);
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3), nonnull(1, 2)));
/* Keeps the first block. */
void arena_reset(struct arena *arena);
void arena_free(struct arena *arena);

/* Octets, borrowed. Not terminated. */
struct value {
	const char *data;
	size_t size;
};
#define VALUE(literal) ((struct value){ (literal), sizeof(literal) - 1 })
struct value value_of(const char *text);
bool value_is(struct value value, const char *text); /* ASCII case ignored */

struct values {
	struct arena *arena;
	struct value *items;
	size_t count, capacity;
};
/* The octets are borrowed and must outlive the operation. */
void values_add(struct values *values, const void *data, size_t size);
void values_add_text(struct values *values, const char *text);
void values_add_copy(struct values *values, const void *data, size_t size);
void values_printf(struct values *values, const char *format, ...) __attribute__((format(printf, 2, 3), nonnull(1, 2)));

/* Ends the program where memory does: this is a test's server. */
void *must_alloc(size_t size);
char *must_strdup(const char *text);
void *must_grow(void *old, size_t count, size_t size);

#endif
