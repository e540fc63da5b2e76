#include "agent/gate/letters.h"

#include <stddef.h>

#include "proto/messages.h"

struct letter_range { uint32_t first, last; uint8_t stride, class; };
struct fold_range { uint32_t first, last; uint8_t stride; int32_t delta; };

#include "letters_table.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Ranges of stride 2 interleave (upper, lower, upper, …), so they are sorted by their first code point but overlap: a plain walk, which stops early for the usual letters. */
unsigned letter_class(uint32_t code_point)
{
	for (size_t i = 0; i < COUNT(letter_ranges) && letter_ranges[i].first <= code_point; i++) {
		const struct letter_range *range = &letter_ranges[i];
		if (code_point <= range->last && (code_point - range->first) % range->stride == 0)
			return range->class;
	}
	return 0;
}

uint32_t letter_fold(uint32_t code_point)
{
	for (size_t i = 0; i < COUNT(fold_ranges) && fold_ranges[i].first <= code_point; i++) {
		const struct fold_range *range = &fold_ranges[i];
		if (code_point <= range->last && (code_point - range->first) % range->stride == 0)
			return (uint32_t)((int32_t)code_point + range->delta);
	}
	return code_point;
}
