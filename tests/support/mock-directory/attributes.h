/* attributes: what of an object can be read and compared, by whom. One table, ordered by name. */
#ifndef MOCK_DIRECTORY_ATTRIBUTES_H
#define MOCK_DIRECTORY_ATTRIBUTES_H

#include "forest.h"
#include "values.h"

struct view {
	struct forest *forest;
	struct object *who;  /* the bound one, NULL: anonymous */
	struct arena *arena;
	int64_t now;
	unsigned descriptor_parts; /* SD flags that were asked for, MS-ADTS 3.1.1.3.4.1.11 */
};

enum syntax { SYNTAX_TEXT, SYNTAX_OCTETS, SYNTAX_INTEGER, SYNTAX_NAME, SYNTAX_CATEGORY, SYNTAX_GUID, SYNTAX_SID };
enum attribute_flags {
	CONSTRUCTED = 1, /* not among "all attributes", not in filters */
	BASE_ONLY = 2,   /* base searches only: operationsError otherwise */
	SECRET = 4,      /* never read */
};
struct attribute_row {
	const char *name;
	enum syntax syntax;
	unsigned flags;
	void (*get)(const struct view *view, struct object *object, struct values *out); /* NULL: as stored */
};

/* Case-insensitive; options such as ";binary" are ignored. NULL: unknown. */
const struct attribute_row *attribute_find(struct value name);
extern const struct attribute_row attribute_rows[];
extern const size_t attribute_row_count;

/* What the viewer may read; `row` NULL: nothing. */
void attribute_values(const struct attribute_row *row, const struct view *view, struct object *object, struct values *out);

#endif
