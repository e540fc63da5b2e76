#include "base/nfc.h"

#include <unictype.h>
#include <uninorm.h>

#include "base/secret.h"

/* libunistring's own u8_normalize sorts in memory that it does not wipe; only its tables are used here. */

enum { DECOMPOSITION_MAX = 4 }; /* of one code point, in full (UAX #15, table of maximum expansion factors for NFD in UTF-32) */

struct points {
	ucs4_t *at;
	size_t count, capacity;
};

/* The full canonical decomposition: the tables go one step at a time. */
static void decompose(ucs4_t point, struct points *points)
{
	ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];
	int count = uc_canonical_decomposition(point, parts);
	if (count < 0 && points->count < points->capacity)
		points->at[points->count++] = point;
	for (int i = 0; i < count; i++)
		decompose(parts[i], points);
	wipe(parts, sizeof parts);
}

/* Canonical ordering (The Unicode Standard, D109): a stable sort of what stands between starters. */
static void reorder(struct points *points)
{
	for (size_t i = 1; i < points->count; i++) {
		ucs4_t point = points->at[i];
		int class = uc_combining_class(point);
		size_t to = i;
		for (; class > 0 && to > 0 && uc_combining_class(points->at[to - 1]) > class; to--)
			points->at[to] = points->at[to - 1];
		points->at[to] = point;
	}
}

/* Canonical composition (D117), in place. */
static void compose(struct points *points)
{
	size_t kept = 0, starter = SIZE_MAX;
	int last_class = 0;
	for (size_t i = 0; i < points->count; i++) {
		ucs4_t point = points->at[i];
		int class = uc_combining_class(point);
		bool blocked = starter == SIZE_MAX || (kept > starter + 1 && last_class >= class);
		ucs4_t composite = blocked ? 0 : uc_composition(points->at[starter], point);
		if (composite) {
			points->at[starter] = composite;
			continue;
		}
		if (class == 0)
			starter = kept;
		last_class = class;
		points->at[kept++] = point;
	}
	points->count = kept;
}

static bool equals(const struct points *points, struct bytes text)
{
	size_t at = 0;
	for (size_t i = 0; i < points->count; i++)
		if (at >= text.size || utf8_next(text, &at) != points->at[i])
			return false;
	return at == text.size;
}

enum status nfc_check(struct bytes text, bool *ret_is_nfc)
{
	AUTO_SECRET struct secret memory = SECRET_EMPTY;
	size_t capacity = utf8_utf16_units(text) * DECOMPOSITION_MAX;
	enum status status = secret_new(capacity * sizeof(ucs4_t) + 1, &memory);
	if (status != STATUS_OK)
		return status;
	struct points points = { (ucs4_t *)memory.data, 0, capacity };
	for (size_t at = 0; at < text.size;)
		decompose(utf8_next(text, &at), &points);
	reorder(&points);
	compose(&points);
	*ret_is_nfc = equals(&points, text);
	return STATUS_OK;
}
