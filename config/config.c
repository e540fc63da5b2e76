#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "config/document.h"
#include "config/value.h"

#define PATH_LIMIT 256
#define SUGGESTION_LIMIT 48
#define SHARED_PREFIX 4

struct judge {
	const char *name;
	const char *folder;              /* absolute, with a slash behind it */
	struct config_errors *errors;
	struct config_document *document;
	bool out_of_memory;
};

/* One mapping being judged by one table: the file itself or an element of a list. */
struct scope {
	const struct config_key *table;
	void *config;
	const char *prefix;              /* "" or "directories[0]." */
	bool *given;                     /* one a row */
};

static void *member_of(const struct config_key *key, void *config)
{
	return (char *)config + key->offset;
}

/* ---- unknown keys ---- */

static size_t edit_distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
	size_t row[SUGGESTION_LIMIT + 1];
	if (a_size > SUGGESTION_LIMIT || b_size > SUGGESTION_LIMIT)
		return SIZE_MAX;
	for (size_t j = 0; j <= b_size; j++)
		row[j] = j;
	for (size_t i = 1; i <= a_size; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= b_size; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
		}
	}
	return row[b_size];
}

/* The row whose last word is `word`, wherever it stands. */
static const struct config_key *find_elsewhere(const struct config_key *table, const char *word)
{
	for (const struct config_key *key = table; key->path != NULL; key++) {
		const char *dot = strrchr(key->path, '.');
		if (dot != NULL && strcmp(dot + 1, word) == 0)
			return key;
	}
	return NULL;
}

/* The word behind `section` ("" or "channel.") that is most like `word`; borrowed from the table. */
static struct bytes nearest_word(const struct config_key *table, const char *section, const char *word)
{
	size_t best = SIZE_MAX, section_size = strlen(section), size = strlen(word);
	struct bytes nearest = { 0 };
	for (const struct config_key *key = table; key->path != NULL; key++) {
		if (strncmp(key->path, section, section_size) != 0)
			continue;
		const char *candidate = key->path + section_size;
		size_t length = strcspn(candidate, ".");
		size_t distance = edit_distance(word, size, candidate, length);
		if (distance < best) {
			best = distance;
			nearest = bytes_of(candidate, length);
		}
	}
	bool prefix = nearest.size >= SHARED_PREFIX && size >= SHARED_PREFIX && memcmp(nearest.data, word, SHARED_PREFIX) == 0;
	return (best <= 3 && best * 2 <= size) || prefix ? nearest : (struct bytes){ 0 };
}

static void list_words(const struct config_key *table, const char *section, char *out, size_t capacity)
{
	size_t section_size = strlen(section), at = 0;
	const char *last = "";
	size_t last_size = 0;
	out[0] = '\0';
	for (const struct config_key *key = table; key->path != NULL; key++) {
		const char *word = key->path + section_size;
		if (strncmp(key->path, section, section_size) != 0)
			continue;
		size_t size = strcspn(word, ".");
		if (size == last_size && memcmp(word, last, size) == 0)
			continue;
		last = word;
		last_size = size;
		if (at + size + 8 > capacity) {
			snprintf(out + at, capacity - at, ", ...");
			return;
		}
		at += (size_t)snprintf(out + at, capacity - at, "%s%.*s", at == 0 ? "" : ", ", (int)size, word);
	}
}

static bool is_known_path(const struct config_key *table, const char *path)
{
	for (const struct config_key *key = table; key->path != NULL; key++)
		if (strcmp(key->path, path) == 0)
			return true;
	return false;
}

static void refuse_unknown(struct judge *judge, const struct scope *scope, const char *section, const struct node *key)
{
	char word[SUGGESTION_LIMIT + 1], known[512];
	size_t at = 0;
	for (; at < key->size && at < SUGGESTION_LIMIT; at++)
		word[at] = key->text[at] >= ' ' && key->text[at] < 0x7F ? key->text[at] : '?';
	word[at] = '\0';
	struct bytes nearest = nearest_word(scope->table, section, word);
	const struct config_key *elsewhere = find_elsewhere(scope->table, word);
	/* A slip of one letter is likelier than a key that went astray. */
	bool slip = nearest.size > 0 && edit_distance(word, strlen(word), (const char *)nearest.data, nearest.size) <= 1;
	if (section[0] == '\0' && strchr(word, '.') != NULL && is_known_path(scope->table, word))
		error_add(judge->errors, judge->name, key->line, "unknown key \"%s%s\"; a dot does not separate here, write \"%s%.*s:\" and the rest indented below it",
		          scope->prefix, word, scope->prefix, (int)strcspn(word, "."), word);
	else if (elsewhere != NULL && !slip)
		error_add(judge->errors, judge->name, key->line, "unknown key \"%s%s%s\"; there is \"%s%s\"", scope->prefix, section, word, scope->prefix, elsewhere->path);
	else if (nearest.size > 0)
		error_add(judge->errors, judge->name, key->line, "unknown key \"%s%s%s\"; the nearest known one is \"%s%s%.*s\"", scope->prefix, section, word,
		          scope->prefix, section, (int)nearest.size, (const char *)nearest.data);
	else {
		list_words(scope->table, section, known, sizeof known);
		error_add(judge->errors, judge->name, key->line, "unknown key \"%s%s%s\"; known here are %s", scope->prefix, section, word, known);
	}
}

/* ---- values ---- */

static void report(struct judge *judge, unsigned line, const struct scope *scope, const struct config_key *key, char *take_what)
{
	if (take_what != NULL)
		error_add(judge->errors, judge->name, line, "%s%s: %s", scope->prefix, key->path, take_what);
	free(take_what);
}

static void judge_scalar(struct judge *judge, const struct scope *scope, const struct config_key *key, const struct node *value)
{
	if (value->kind != NODE_SCALAR) {
		error_add(judge->errors, judge->name, value->line, "%s%s: should be one value, not a %s", scope->prefix, key->path,
		          value->kind == NODE_MAPPING ? "mapping" : "list");
		return;
	}
	if (value->size == 0 && value->plain) {
		error_add(judge->errors, judge->name, value->line, "%s%s: has no value; write one, or leave the key out to get its default", scope->prefix, key->path);
		return;
	}
	report(judge, value->line, scope, key, value_parse(key, value->text, value->size, judge->folder, member_of(key, scope->config), &judge->out_of_memory));
}

static bool append_string(struct judge *judge, struct config_strings *strings, const char *text, size_t size)
{
	char **items = realloc(strings->items, (strings->count + 1) * sizeof *items);
	if (items != NULL)
		strings->items = items;
	char *copy = items == NULL ? NULL : strndup(text, size);
	if (copy == NULL) {
		judge->out_of_memory = true;
		return false;
	}
	strings->items[strings->count++] = copy;
	return true;
}

static bool judge_count(struct judge *judge, const struct scope *scope, const struct config_key *key, const struct node *value)
{
	if (value->kind != NODE_SEQUENCE) {
		error_add(judge->errors, judge->name, value->line, "%s%s: should be a list, each item behind \"- \"", scope->prefix, key->path);
		return false;
	}
	int64_t count = (int64_t)value->count;
	if (count < key->min || (key->max != 0 && count > key->max)) {
		error_add(judge->errors, judge->name, value->line, "%s%s: has %lld items; it should have %s%lld", scope->prefix, key->path, (long long)count,
		          count < key->min ? "at least " : "at most ", (long long)(count < key->min ? key->min : key->max));
		return false;
	}
	return true;
}

static void judge_strings(struct judge *judge, const struct scope *scope, const struct config_key *key, const struct node *value)
{
	if (!judge_count(judge, scope, key, value))
		return;
	for (size_t i = 0; i < value->count; i++) {
		const struct node *item = value->children[i];
		if (item->kind != NODE_SCALAR || item->size == 0 || !text_is_clean(item->text, item->size))
			error_add(judge->errors, judge->name, item->line, "%s%s[%zu]: should be a text of one line", scope->prefix, key->path, i);
		else if (!append_string(judge, member_of(key, scope->config), item->text, item->size))
			return;
	}
}

static void judge_table(struct judge *judge, const struct config_key *table, void *config, const char *prefix, const struct node *root, unsigned line);

static void judge_list(struct judge *judge, const struct scope *scope, const struct config_key *key, const struct node *value)
{
	struct config_list *list = member_of(key, scope->config);
	if (!judge_count(judge, scope, key, value) || value->count == 0)
		return;
	list->items = calloc(value->count, key->element_size);
	if (list->items == NULL) {
		judge->out_of_memory = true;
		return;
	}
	list->count = value->count;
	for (size_t i = 0; i < value->count; i++) {
		char prefix[PATH_LIMIT];
		snprintf(prefix, sizeof prefix, "%s%s[%zu].", scope->prefix, key->path, i);
		const struct node *item = value->children[i];
		if (item->kind == NODE_MAPPING)
			judge_table(judge, key->table, (char *)list->items + i * key->element_size, prefix, item, item->line);
		else
			error_add(judge->errors, judge->name, item->line, "%s%s[%zu]: should be a mapping (key: value)", scope->prefix, key->path, i);
	}
}

static void judge_value(struct judge *judge, const struct scope *scope, const struct config_key *key, const struct node *value)
{
	switch (key->kind) {
	case CONFIG_STRINGS:
		judge_strings(judge, scope, key, value);
		return;
	case CONFIG_LIST:
		judge_list(judge, scope, key, value);
		return;
	default:
		judge_scalar(judge, scope, key, value);
	}
}

/* ---- defaults ---- */

/* "[a, b]" as it would be written; without quotes, for it is ours. */
static void default_strings(struct judge *judge, struct config_strings *strings, const char *text)
{
	text += strspn(text, "[ ");
	while (*text != '\0' && *text != ']') {
		size_t size = strcspn(text, ",] ");
		if (!append_string(judge, strings, text, size))
			return;
		text += size;
		text += strspn(text, ", ");
	}
}

static void apply_default(struct judge *judge, const struct scope *scope, const struct config_key *key, unsigned line)
{
	if (key->required) {
		const char *what = key->wanted != NULL ? key->wanted : key->help;
		error_add(judge->errors, judge->name, line, "%s%s is missing%s%s", scope->prefix, key->path, what == NULL ? "" : ": ", what == NULL ? "" : what);
		return;
	}
	if (key->initial == NULL)
		return;
	if (key->kind == CONFIG_STRINGS)
		default_strings(judge, member_of(key, scope->config), key->initial);
	else
		report(judge, 0, scope, key, value_parse(key, key->initial, strlen(key->initial), judge->folder, member_of(key, scope->config), &judge->out_of_memory));
}

/* ---- mappings ---- */

static const struct config_key *find_key(const struct config_key *table, const char *path, bool *ret_section)
{
	size_t size = strlen(path);
	*ret_section = false;
	for (const struct config_key *key = table; key->path != NULL; key++) {
		if (strcmp(key->path, path) == 0)
			return key;
		if (strncmp(key->path, path, size) == 0 && key->path[size] == '.')
			*ret_section = true;
	}
	return NULL;
}

static bool is_repeated(struct judge *judge, const struct node *mapping, size_t index)
{
	const struct node *key = mapping->children[index];
	for (size_t i = 0; i < index; i += 2) {
		const struct node *earlier = mapping->children[i];
		if (earlier->kind != NODE_SCALAR || earlier->size != key->size || memcmp(earlier->text, key->text, key->size) != 0)
			continue;
		char sample[SUGGESTION_LIMIT + 1];
		snprintf(sample, sizeof sample, "%s", text_is_clean(key->text, key->size) ? key->text : "?");
		error_add(judge->errors, judge->name, key->line, "\"%s\" is given twice; it stands in line %u already", sample, earlier->line);
		return true;
	}
	return false;
}

static void judge_mapping(struct judge *judge, const struct scope *scope, const char *section, const struct node *mapping);

static void judge_pair(struct judge *judge, const struct scope *scope, const char *section, const struct node *key, const struct node *value)
{
	char path[PATH_LIMIT], full[2 * PATH_LIMIT];
	bool is_section = false;
	const struct config_key *row = NULL;
	/* A dot in a key would name a row of another section. */
	if (strlen(key->text) == key->size && memchr(key->text, '.', key->size) == NULL && key->size + strlen(section) + 2 <= sizeof path) {
		snprintf(path, sizeof path, "%s%s", section, key->text);
		row = find_key(scope->table, path, &is_section);
	}
	if (row == NULL && !is_section) {
		refuse_unknown(judge, scope, section, key);
		return;
	}
	snprintf(full, sizeof full, "%s%s", scope->prefix, path);
	if (judge->document != NULL && !document_remember(judge->document, full, key->line))
		judge->out_of_memory = true;
	if (row != NULL) {
		scope->given[row - scope->table] = true;
		judge_value(judge, scope, row, value);
	} else if (value->kind == NODE_MAPPING) {
		strcat(path, ".");
		judge_mapping(judge, scope, path, value);
	} else if (value->kind != NODE_SCALAR || value->size > 0 || !value->plain) {
		error_add(judge->errors, judge->name, value->line, "%s: should be a mapping (key: value)", full);
	}
}

static void judge_mapping(struct judge *judge, const struct scope *scope, const char *section, const struct node *mapping)
{
	for (size_t i = 0; i + 1 < mapping->count && !judge->out_of_memory && judge->errors->count <= ERRORS_LIMIT; i += 2) {
		const struct node *key = mapping->children[i];
		if (key->kind != NODE_SCALAR)
			error_add(judge->errors, judge->name, key->line, "a key should be a word");
		else if (!is_repeated(judge, mapping, i))
			judge_pair(judge, scope, section, key, mapping->children[i + 1]);
	}
}

static void judge_table(struct judge *judge, const struct config_key *table, void *config, const char *prefix, const struct node *root, unsigned line)
{
	size_t rows = 0;
	while (table[rows].path != NULL)
		rows++;
	AUTO_FREE bool *given = calloc(rows + 1, sizeof *given);
	if (given == NULL) {
		judge->out_of_memory = true;
		return;
	}
	struct scope scope = { table, config, prefix, given };
	if (root != NULL)
		judge_mapping(judge, &scope, "", root);
	for (size_t i = 0; i < rows && !judge->out_of_memory; i++)
		if (!given[i])
			apply_default(judge, &scope, &table[i], line);
}

/* ---- files ---- */

/* The absolute folder of a file, with a slash behind it. */
static char *folder_of(const char *name)
{
	const char *slash = strrchr(name, '/');
	int size = slash == NULL ? 0 : (int)(slash - name + 1);
	char *folder = NULL;
	AUTO_FREE char *here = name[0] == '/' ? NULL : getcwd(NULL, 0);
	if (name[0] != '/' && here == NULL)
		return NULL;
	if (asprintf(&folder, "%s%s%.*s", here == NULL ? "" : here, here == NULL || here[1] == '\0' ? "" : "/", size, name) < 0)
		return NULL;
	return folder;
}

static struct config_document *new_document(const char *name)
{
	struct config_document *document = calloc(1, sizeof *document);
	if (document != NULL && (document->name = strdup(name)) == NULL) {
		free(document);
		return NULL;
	}
	return document;
}

static enum status parse(struct judge *judge, const char *text, size_t size, const struct config_key *table, void *config)
{
	struct node *root;
	size_t before = judge->errors->count;
	enum status status = document_parse(judge->name, text, size, judge->errors, &root);
	if (status != STATUS_OK) {
		node_free(root);
		return status;
	}
	/* Without a tree, that keys are missing would be said in vain. */
	bool judged = judge->errors->count == before || root != NULL;
	if (root != NULL && root->kind != NODE_MAPPING && !(root->kind == NODE_SCALAR && root->size == 0)) {
		error_add(judge->errors, judge->name, root->line, "the file should be a mapping (key: value)");
		judged = false;
	}
	if (judged)
		judge_table(judge, table, config, "", root != NULL && root->kind == NODE_MAPPING ? root : NULL, 0);
	node_free(root);
	if (judge->out_of_memory)
		return STATUS_AGENT_INTERNAL;
	return judge->errors->count == before ? STATUS_OK : STATUS_LOCAL_CONFIG;
}

enum status config_parse(const char *name, const char *text, size_t size, const struct config_key *table, void *config, struct config_errors *errors,
                         struct config_document **ret_document)
{
	AUTO_FREE char *folder = folder_of(name);
	struct judge judge = { .name = name, .folder = folder, .errors = errors };
	if (ret_document != NULL)
		*ret_document = judge.document = new_document(name);
	if (folder == NULL || (ret_document != NULL && judge.document == NULL))
		return STATUS_AGENT_INTERNAL;
	return parse(&judge, text, size, table, config);
}

/* False with errno. */
static bool read_all(int fd, char *out, size_t capacity, size_t *ret_size)
{
	*ret_size = 0;
	while (*ret_size < capacity) {
		ssize_t got = read(fd, out + *ret_size, capacity - *ret_size);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got == 0;
		*ret_size += (size_t)got;
	}
	return true;
}

static enum status load_fd(int fd, const char *file, const struct config_key *table, void *config, struct config_errors *errors,
                           struct config_document **ret_document)
{
	struct stat facts;
	size_t size;
	AUTO_FREE char *text = malloc(DOCUMENT_SIZE_LIMIT + 1);
	if (text == NULL)
		return STATUS_AGENT_INTERNAL;
	if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
		error_add(errors, file, 0, "is not a regular file");
		return STATUS_LOCAL_CONFIG;
	}
	/* Whoever owns it can write it. */
	if (facts.st_uid != 0 && facts.st_uid != geteuid()) {
		error_add(errors, file, 0, "it belongs to the user with number %u, who can write it; it should belong to root", (unsigned)facts.st_uid);
		return STATUS_LOCAL_CONFIG;
	}
	if ((facts.st_mode & S_IWOTH) != 0) {
		error_add(errors, file, 0, "everybody can write it (mode %04o); it should have mode 0640", (unsigned)(facts.st_mode & 07777));
		return STATUS_LOCAL_CONFIG;
	}
	if ((facts.st_mode & S_IWGRP) != 0 && facts.st_gid != 0) {
		error_add(errors, file, 0, "its group can write it (mode %04o); it should have mode 0640", (unsigned)(facts.st_mode & 07777));
		return STATUS_LOCAL_CONFIG;
	}
	if (!read_all(fd, text, DOCUMENT_SIZE_LIMIT + 1, &size)) {
		error_add(errors, file, 0, "cannot be read: %s", strerror(errno));
		return STATUS_LOCAL_CONFIG;
	}
	return config_parse(file, text, size, table, config, errors, ret_document);
}

enum status config_load(const char *file, const struct config_key *table, void *config, struct config_errors *errors, struct config_document **ret_document)
{
	if (ret_document != NULL)
		*ret_document = NULL;
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		error_add(errors, file, 0, "cannot be read: %s", strerror(errno));
		return STATUS_LOCAL_CONFIG;
	}
	enum status status = load_fd(fd, file, table, config, errors, ret_document);
	close(fd);
	return status;
}

/* ---- afterwards ---- */

static void clear_member(const struct config_key *key, void *member)
{
	struct config_strings *strings = member;
	struct config_list *list = member;
	switch (key->kind) {
	case CONFIG_STRING:
	case CONFIG_PATH:
		free(*(char **)member);
		*(char **)member = NULL;
		return;
	case CONFIG_STRINGS:
		while (strings->count > 0)
			free(strings->items[--strings->count]);
		free(strings->items);
		*strings = (struct config_strings){ 0 };
		return;
	case CONFIG_LIST:
		while (list->count > 0)
			config_clear(key->table, (char *)list->items + --list->count * key->element_size);
		free(list->items);
		*list = (struct config_list){ 0 };
		return;
	case CONFIG_BOOL:
		*(bool *)member = false;
		return;
	case CONFIG_CHOICE:
		*(int *)member = 0;
		return;
	case CONFIG_INT:
	case CONFIG_DURATION_MS:
	case CONFIG_SIZE:
		*(int64_t *)member = 0;
		return;
	}
}

void config_clear(const struct config_key *table, void *config)
{
	for (const struct config_key *key = table; key->path != NULL; key++)
		clear_member(key, member_of(key, config));
}
