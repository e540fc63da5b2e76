/* document: a YAML text as a tree of nodes with line numbers, read with libyaml's events. Private to config.
 *
 * Knows YAML's dangers and nothing of keys: refuses anchors, aliases, tags, further documents, more than 64 KiB, nesting above 8. */
#ifndef CONFIG_DOCUMENT_H
#define CONFIG_DOCUMENT_H

#include "config/config.h"

#define DOCUMENT_SIZE_LIMIT (64 * 1024)
#define DOCUMENT_DEPTH_LIMIT 8
/* Findings of a file that are kept. */
#define ERRORS_LIMIT 100

enum node_kind { NODE_SCALAR, NODE_SEQUENCE, NODE_MAPPING };

struct node {
	enum node_kind kind;
	unsigned line;
	char *text;              /* of a scalar; NUL behind it */
	size_t size;
	bool plain;              /* a scalar without quotes */
	struct node **children;  /* of a mapping: key, value, key, value … */
	size_t count;
};

/* Where given values stand. */
struct config_place {
	char *path;
	unsigned line;
};

struct config_document {
	char *name;
	struct config_place *places;
	size_t count;
};

/* The root of the text, NULL where it is empty or so wrong that there is no tree. STATUS_AGENT_INTERNAL when memory is out; findings are in `errors`. */
enum status document_parse(const char *name, const char *text, size_t size, struct config_errors *errors, struct node **ret_root) MUST_USE;
void node_free(struct node *node);

/* Appends a finding. */
void error_add(struct config_errors *errors, const char *file, unsigned line, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The line where a path was given, 0 where it was not. */
unsigned document_line(const struct config_document *document, const char *path);
bool document_remember(struct config_document *document, const char *path, unsigned line);

#endif
