/* config: YAML files read by one table of keys. The table feeds parsing, ranges, defaults, --check-config and --dump-config.
 *
 * A table describes a flat struct: each row names a dotted path and the member's offset. Lists of mappings (`directories: - name: …`) are rows of
 * kind CONFIG_LIST with a table of their own and an element size. libyaml's scalars are taken as text and judged here: no implicit typing, `010` is ten,
 * durations want a unit (`10s`), sizes too (`64KiB`). Refused, with file:line: unknown and repeated keys, anchors, aliases, tags, several documents, more than 64 KiB, nesting
 * above 8, values out of range. All errors of a file are reported, not only the first. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

enum config_kind {
	CONFIG_STRING,        /* char *; min, max: length in bytes */
	CONFIG_PATH,          /* char *; absolute; a relative one is taken from the file's folder */
	CONFIG_BOOL,          /* bool; true or false and nothing else */
	CONFIG_INT,           /* int64_t */
	CONFIG_DURATION_MS,   /* int64_t milliseconds; 250ms, 10s, 5min, 2h, 30d; min, max in ms */
	CONFIG_SIZE,          /* int64_t bytes; 512, 64KiB, 16MiB */
	CONFIG_CHOICE,        /* int; `choices` "a|b|c", the value is the word's number */
	CONFIG_STRINGS,       /* struct config_strings; min, max: how many */
	CONFIG_LIST           /* struct config_list; `table` and `element_size` describe an element; min, max: how many */
};

struct config_strings { char **items; size_t count; };
struct config_list { void *items; size_t count; };

struct config_key {
	const char *path;          /* "channel.ping_interval"; inside a list's table relative to the element */
	enum config_kind kind;
	size_t offset;
	const char *initial;       /* the default as it would be written; NULL: required where `required`, else absent (NULL, 0, empty) */
	bool required;
	bool reloadable;           /* SIGHUP may change it */
	int64_t min, max;          /* max 0: no limit but the kind's */
	const char *choices;
	const struct config_key *table;
	size_t element_size;
	const char *help;          /* one line */
	const char *wanted;        /* required: what is to be done where it is missing: "list the servers"; NULL: help is shown */
};
/* A table ends with a row whose path is NULL. */

/* One finding; `line` 0 where there is none. Text: what is wrong and what would be right. */
struct config_error { char *file; unsigned line; char *text; };
#define CONFIG_ERROR_SIZE 8192 /* more of it is cut */
struct config_errors { struct config_error *items; size_t count; };
/* "file:line: text"; without what is not known. The latter one a line. */
void config_error_format(const struct config_error *error, char *text, size_t capacity);
void config_errors_print(const struct config_errors *errors, FILE *out);
void config_errors_clear(struct config_errors *errors);
/* For judgements beyond the table (a file that is missing, two keys that contradict each other): the line is that of `path` (elements as
 * "directories[0].name"); where that is not written in the file, of what it belongs to. */
struct config_document;
void config_error_add(struct config_errors *errors, const struct config_document *document, const char *path, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Reads `file` into `config` (zeroed by the caller, `table` describes it). On STATUS_LOCAL_CONFIG `errors` says why, everywhere. `config` holds defaults where nothing was given.
 * `ret_document` (may be NULL) remembers lines and which values came from the file, for config_error_add and config_dump. */
enum status config_load(const char *file, const struct config_key *table, void *config, struct config_errors *errors, struct config_document **ret_document) MUST_USE;
/* The same from memory, for tests and fuzzing; `name` stands for the file. */
enum status config_parse(const char *name, const char *text, size_t size, const struct config_key *table, void *config, struct config_errors *errors,
                         struct config_document **ret_document) MUST_USE;
/* Frees what the table's members own and zeroes them. */
void config_clear(const struct config_key *table, void *config);
void config_document_free(struct config_document *document);
/* Every key with its value and where it comes from: "key: value    # file:line" or "# default". */
void config_dump(const struct config_key *table, const void *config, const struct config_document *document, FILE *out);
/* The dotted paths that differ between two configs and are not reloadable, one a line; a malloc'ed string, NULL for none. */
char *config_not_reloadable(const struct config_key *table, const void *before, const void *after);

#endif
