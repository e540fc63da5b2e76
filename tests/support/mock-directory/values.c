#include "values.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	_Alignas(max_align_t) char data[];
};

void *must_alloc(size_t size)
{
	void *memory = calloc(1, size ? size : 1);
	if (!memory) {
		fprintf(stderr, "mock-directory: out of memory\n");
		abort();
	}
	return memory;
}

char *must_strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	return memcpy(must_alloc(size), text, size);
}

void *must_grow(void *old, size_t count, size_t size)
{
	void *memory = reallocarray(old, count, size);
	if (!memory) {
		fprintf(stderr, "mock-directory: out of memory\n");
		abort();
	}
	return memory;
}

void *arena_take(struct arena *arena, size_t size)
{
	size_t aligned = (size + 15) & ~(size_t)15;
	struct arena_block *block = arena->current;
	if (!block || block->size - block->used < aligned) {
		size_t room = aligned > 64 * 1024 ? aligned : 64 * 1024;
		struct arena_block *fresh = malloc(sizeof *fresh + room);
		if (!fresh)
			abort();
		*fresh = (struct arena_block){ .size = room };
		if (block) {
			fresh->next = block->next;
			block->next = fresh;
		} else {
			arena->first = fresh;
		}
		arena->current = block = fresh;
	}
	void *memory = block->data + block->used;
	block->used += aligned;
	return memory;
}

__attribute__((format(printf, 2, 0), nonnull)) static char *arena_vprintf(struct arena *arena, const char *format, va_list arguments)
{
	va_list again;
	va_copy(again, arguments);
	int length = vsnprintf(NULL, 0, format, again);
	va_end(again);
	char *text = arena_take(arena, (size_t)length + 1);
	vsnprintf(text, (size_t)length + 1, format, arguments);
	return text;
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	char *text = arena_vprintf(arena, format, arguments);
	va_end(arguments);
	return text;
}

void arena_reset(struct arena *arena)
{
	if (!arena->first)
		return;
	for (struct arena_block *block = arena->first->next, *next; block; block = next) {
		next = block->next;
		free(block);
	}
	arena->first->next = NULL;
	arena->first->used = 0;
	arena->current = arena->first;
}

void arena_free(struct arena *arena)
{
	arena_reset(arena);
	free(arena->first);
	*arena = (struct arena){ 0 };
}

struct value value_of(const char *text)
{
	return (struct value){ text, strlen(text) };
}

bool value_is(struct value value, const char *text)
{
	return value.size == strlen(text) && !strncasecmp(value.data, text, value.size);
}

void values_add(struct values *values, const void *data, size_t size)
{
	if (values->count == values->capacity) {
		size_t capacity = values->capacity ? values->capacity * 2 : 8;
		struct value *items = arena_take(values->arena, capacity * sizeof *items);
		if (values->count)
			memcpy(items, values->items, values->count * sizeof *items);
		values->items = items;
		values->capacity = capacity;
	}
	values->items[values->count++] = (struct value){ data, size };
}

void values_add_text(struct values *values, const char *text)
{
	values_add(values, text, strlen(text));
}

void values_add_copy(struct values *values, const void *data, size_t size)
{
	void *copy = arena_take(values->arena, size);
	if (size)
		memcpy(copy, data, size);
	values_add(values, copy, size);
}

void values_printf(struct values *values, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	values_add_text(values, arena_vprintf(values->arena, format, arguments));
	va_end(arguments);
}
