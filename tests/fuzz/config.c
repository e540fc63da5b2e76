/* A configuration file from anybody: parsed by a table with every kind, dumped, compared with itself and cleared. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct element {
	char *host;
	int64_t port;
	struct config_strings bases;
};

struct sample {
	char *string, *path;
	bool flag;
	int64_t number, duration_ms, size;
	int choice;
	struct config_strings strings;
	struct config_list list;
};

static const struct config_key element_keys[] = {
	{ "host", CONFIG_STRING, offsetof(struct element, host), NULL, .required = true, .max = 64 },
	{ "port", CONFIG_INT, offsetof(struct element, port), "636", .min = 1, .max = 65535 },
	{ "search.bases", CONFIG_STRINGS, offsetof(struct element, bases), "[a]" },
	{ 0 },
};

static const struct config_key keys[] = {
	{ "string", CONFIG_STRING, offsetof(struct sample, string), "x" },
	{ "files.path", CONFIG_PATH, offsetof(struct sample, path), NULL },
	{ "files.flag", CONFIG_BOOL, offsetof(struct sample, flag), "true" },
	{ "channel.number", CONFIG_INT, offsetof(struct sample, number), "1", .min = INT64_MIN },
	{ "channel.timers.duration", CONFIG_DURATION_MS, offsetof(struct sample, duration_ms), "1s", .min = INT64_MIN },
	{ "channel.size", CONFIG_SIZE, offsetof(struct sample, size), "1KiB", .min = INT64_MIN },
	{ "choice", CONFIG_CHOICE, offsetof(struct sample, choice), "b", .choices = "a|b|c" },
	{ "strings", CONFIG_STRINGS, offsetof(struct sample, strings), NULL },
	{ "list", CONFIG_LIST, offsetof(struct sample, list), NULL, .max = 8, .table = element_keys, .element_size = sizeof(struct element) },
	{ 0 },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *nowhere;
	struct sample config = { 0 };
	struct config_errors errors = { 0 };
	struct config_document *document;
	if (nowhere == NULL)
		nowhere = fopen("/dev/null", "w");
	enum status status = config_parse("/etc/fuzz.yaml", (const char *)data, size, keys, &config, &errors, &document);
	if ((status == STATUS_OK) != (errors.count == 0))
		abort();
	config_errors_print(&errors, nowhere);
	config_dump(keys, &config, document, nowhere);
	char *differences = config_not_reloadable(keys, &config, &config);
	if (differences != NULL)
		abort();
	config_errors_clear(&errors);
	config_document_free(document);
	config_clear(keys, &config);
	return 0;
}
