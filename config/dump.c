/* Settings that are in force: shown, and held against later ones. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "config/document.h"
#include "config/value.h"

#define PATH_LIMIT 256

static const void *const_member_of(const struct config_key *key, const void *config)
{
	return (const char *)config + key->offset;
}

static void dump_table(const struct config_key *table, const void *config, const struct config_document *document, const char *prefix, FILE *out)
{
	for (const struct config_key *key = table; key->path != NULL; key++) {
		char path[2 * PATH_LIMIT];
		snprintf(path, sizeof path, "%s%s", prefix, key->path);
		const struct config_list *list = const_member_of(key, config);
		if (key->kind == CONFIG_LIST && list->count > 0) {
			for (size_t i = 0; i < list->count; i++) {
				char inner[PATH_LIMIT];
				snprintf(inner, sizeof inner, "%.*s[%zu].", PATH_LIMIT - 32, path, i);
				dump_table(key->table, (const char *)list->items + i * key->element_size, document, inner, out);
			}
			continue;
		}
		unsigned line = document_line(document, path);
		AUTO_FREE char *value = key->kind == CONFIG_LIST ? strdup("[]") : value_format(key, const_member_of(key, config));
		int width = fprintf(out, "%s:%s%s", path, value == NULL ? "" : " ", value == NULL ? "" : value);
		fprintf(out, "%*s", width < 48 ? 48 - width : 2, "");
		if (line != 0)
			fprintf(out, "# %s:%u\n", document->name, line);
		else
			fprintf(out, "# %s\n", value == NULL ? "not set" : "default");
	}
}

void config_dump(const struct config_key *table, const void *config, const struct config_document *document, FILE *out)
{
	dump_table(table, config, document, "", out);
}

static bool same_value(const struct config_key *key, const void *before, const void *after)
{
	AUTO_FREE char *a = value_format(key, before);
	AUTO_FREE char *b = value_format(key, after);
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void print_not_reloadable(const struct config_key *table, const void *before, const void *after, const char *prefix, FILE *out)
{
	for (const struct config_key *key = table; key->path != NULL; key++) {
		const struct config_list *a = const_member_of(key, before), *b = const_member_of(key, after);
		if (key->reloadable)
			continue;
		if (key->kind != CONFIG_LIST ? !same_value(key, a, b) : a->count != b->count) {
			fprintf(out, "%s%s\n", prefix, key->path);
			continue;
		}
		for (size_t i = 0; key->kind == CONFIG_LIST && i < a->count; i++) {
			char inner[PATH_LIMIT];
			snprintf(inner, sizeof inner, "%s%s[%zu].", prefix, key->path, i);
			print_not_reloadable(key->table, (const char *)a->items + i * key->element_size, (const char *)b->items + i * key->element_size, inner, out);
		}
	}
}

char *config_not_reloadable(const struct config_key *table, const void *before, const void *after)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		return NULL;
	print_not_reloadable(table, before, after, "", out);
	if (fclose(out) != 0 || size == 0) {
		free(text);
		return NULL;
	}
	return text;
}
