#include "config/document.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	const char *name;
	const char *text;
	size_t size;
	struct config_errors *errors;
	bool out_of_memory;
};

/* ---- findings and places ---- */

static void error_add_list(struct config_errors *errors, const char *file, unsigned line, const char *format, va_list args)
{
	if (errors->count > ERRORS_LIMIT)
		return;
	if (errors->count == ERRORS_LIMIT) {
		line = 0;
		format = "there are more errors; only the first ones are shown";
	}
	struct config_error error = { .file = strdup(file), .line = line };
	struct config_error *items = realloc(errors->items, (errors->count + 1) * sizeof *items);
	if (items != NULL)
		errors->items = items;
	if (vasprintf(&error.text, format, args) < 0)
		error.text = NULL;
	if (items == NULL || error.file == NULL || error.text == NULL) {
		free(error.file);
		free(error.text);
		return;
	}
	errors->items[errors->count++] = error;
}

void error_add(struct config_errors *errors, const char *file, unsigned line, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	error_add_list(errors, file, line, format, args);
	va_end(args);
}

/* The first line of what stands below `path`. */
static unsigned line_below(const struct config_document *document, const char *path)
{
	size_t size = strlen(path);
	unsigned line = 0;
	for (size_t i = 0; i < document->count; i++)
		if (strncmp(document->places[i].path, path, size) == 0 && document->places[i].path[size] == '.' && (line == 0 || document->places[i].line < line))
			line = document->places[i].line;
	return line;
}

/* A value that is a default has no line of its own: then that of the mapping where it would stand. */
static unsigned line_near(const struct config_document *document, const char *path)
{
	char at[256];
	if (document == NULL || path == NULL)
		return 0;
	snprintf(at, sizeof at, "%s", path);
	for (;;) {
		unsigned line = document_line(document, at);
		char *dot = strrchr(at, '.');
		if (line == 0)
			line = line_below(document, at);
		if (line != 0 || dot == NULL)
			return line;
		*dot = '\0';
	}
}

void config_error_add(struct config_errors *errors, const struct config_document *document, const char *path, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	error_add_list(errors, document == NULL ? "" : document->name, line_near(document, path), format, args);
	va_end(args);
}

void config_error_format(const struct config_error *error, char *text, size_t capacity)
{
	char line[16] = "";
	if (error->line != 0)
		snprintf(line, sizeof line, "%u:", error->line);
	snprintf(text, capacity, "%s%s%s%s%s", error->file, error->file[0] != '\0' ? ":" : "", line, error->file[0] != '\0' || error->line != 0 ? " " : "", error->text);
}

void config_errors_print(const struct config_errors *errors, FILE *out)
{
	char text[CONFIG_ERROR_SIZE];
	for (size_t i = 0; i < errors->count; i++) {
		config_error_format(&errors->items[i], text, sizeof text);
		fprintf(out, "%s\n", text);
	}
}

void config_errors_clear(struct config_errors *errors)
{
	for (size_t i = 0; i < errors->count; i++) {
		free(errors->items[i].file);
		free(errors->items[i].text);
	}
	free(errors->items);
	*errors = (struct config_errors){ 0 };
}

unsigned document_line(const struct config_document *document, const char *path)
{
	for (size_t i = 0; document != NULL && path != NULL && i < document->count; i++)
		if (strcmp(document->places[i].path, path) == 0)
			return document->places[i].line;
	return 0;
}

bool document_remember(struct config_document *document, const char *path, unsigned line)
{
	struct config_place *places = realloc(document->places, (document->count + 1) * sizeof *places);
	char *copy = strdup(path);
	if (places != NULL)
		document->places = places;
	if (places == NULL || copy == NULL) {
		free(copy);
		return false;
	}
	document->places[document->count++] = (struct config_place){ copy, line };
	return true;
}

void config_document_free(struct config_document *document)
{
	if (document == NULL)
		return;
	for (size_t i = 0; i < document->count; i++)
		free(document->places[i].path);
	free(document->places);
	free(document->name);
	free(document);
}

/* ---- the tree ---- */

void node_free(struct node *node)
{
	if (node == NULL)
		return;
	for (size_t i = 0; i < node->count; i++)
		node_free(node->children[i]);
	free(node->children);
	free(node->text);
	free(node);
}

static unsigned line_of(const yaml_event_t *event)
{
	return (unsigned)event->start_mark.line + 1;
}

static struct node *new_node(struct reader *reader, enum node_kind kind, unsigned line)
{
	struct node *node = calloc(1, sizeof *node);
	if (node == NULL) {
		reader->out_of_memory = true;
		return NULL;
	}
	node->kind = kind;
	node->line = line;
	return node;
}

static bool append_child(struct reader *reader, struct node *parent, struct node *child)
{
	/* Grows at 0, 1, 2, 4, 8 … */
	if ((parent->count & (parent->count - 1)) == 0) {
		struct node **children = realloc(parent->children, (parent->count == 0 ? 1 : parent->count * 2) * sizeof(struct node *));
		if (children == NULL) {
			reader->out_of_memory = true;
			node_free(child);
			return false;
		}
		parent->children = children;
	}
	parent->children[parent->count++] = child;
	return true;
}

/* Whether one stands before the first character of a line. */
static bool is_indented_by_tab(const struct reader *reader, unsigned line)
{
	size_t at = 0;
	for (unsigned now = 1; now < line && at < reader->size; at++)
		now += reader->text[at] == '\n';
	while (at < reader->size && reader->text[at] == ' ')
		at++;
	return at < reader->size && reader->text[at] == '\t';
}

static bool next_event(struct reader *reader, yaml_event_t *event)
{
	if (yaml_parser_parse(&reader->parser, event))
		return true;
	const yaml_parser_t *parser = &reader->parser;
	if (parser->error == YAML_MEMORY_ERROR) {
		reader->out_of_memory = true;
		return false;
	}
	/* A reader error (encoding) knows its byte and not its line. */
	unsigned line = parser->error == YAML_READER_ERROR ? 0 : (unsigned)parser->problem_mark.line + 1;
	if (line != 0 && is_indented_by_tab(reader, line))
		error_add(reader->errors, reader->name, line, "not YAML: a tab; indent with blanks");
	else if (line == 0)
		error_add(reader->errors, reader->name, 0, "not YAML at byte %zu: %s; it should be UTF-8 text without control characters", parser->problem_offset, parser->problem);
	else
		error_add(reader->errors, reader->name, line, "not YAML: %s%s%s", parser->context == NULL ? "" : parser->context,
		          parser->context == NULL ? "" : ", ", parser->problem == NULL ? "unreadable" : parser->problem);
	return false;
}

static void refuse_extras(struct reader *reader, unsigned line, const yaml_char_t *anchor, const yaml_char_t *tag)
{
	if (anchor != NULL)
		error_add(reader->errors, reader->name, line, "anchors (&) are not allowed; write the value where it belongs");
	if (tag != NULL)
		error_add(reader->errors, reader->name, line, "tags (!) are not allowed; write the value without one, in quotes if it begins with \"!\"");
}

static struct node *scalar_node(struct reader *reader, const yaml_event_t *event)
{
	struct node *node = new_node(reader, NODE_SCALAR, line_of(event));
	if (node == NULL)
		return NULL;
	node->size = event->data.scalar.length;
	node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	node->text = malloc(node->size + 1);
	if (node->text == NULL) {
		reader->out_of_memory = true;
		node_free(node);
		return NULL;
	}
	memcpy(node->text, event->data.scalar.value, node->size);
	node->text[node->size] = '\0';
	refuse_extras(reader, node->line, event->data.scalar.anchor, event->data.scalar.tag);
	return node;
}

static struct node *parse_node(struct reader *reader, const yaml_event_t *event, unsigned depth);

/* Children until the collection's end. */
static bool parse_children(struct reader *reader, struct node *node, yaml_event_type_t end, unsigned depth)
{
	for (;;) {
		yaml_event_t event;
		if (!next_event(reader, &event))
			return false;
		if (event.type == end) {
			yaml_event_delete(&event);
			return true;
		}
		struct node *child = parse_node(reader, &event, depth);
		yaml_event_delete(&event);
		if (child == NULL || !append_child(reader, node, child))
			return false;
	}
}

static struct node *collection_node(struct reader *reader, const yaml_event_t *event, unsigned depth)
{
	bool mapping = event->type == YAML_MAPPING_START_EVENT;
	/* Stopping here also bounds libyaml, which is quadratic in nesting: it scans at most 1,024 characters ahead of its events. */
	if (depth > DOCUMENT_DEPTH_LIMIT) {
		error_add(reader->errors, reader->name, line_of(event), "nested more than %d levels deep", DOCUMENT_DEPTH_LIMIT);
		return NULL;
	}
	struct node *node = new_node(reader, mapping ? NODE_MAPPING : NODE_SEQUENCE, line_of(event));
	if (node == NULL)
		return NULL;
	if (mapping)
		refuse_extras(reader, node->line, event->data.mapping_start.anchor, event->data.mapping_start.tag);
	else
		refuse_extras(reader, node->line, event->data.sequence_start.anchor, event->data.sequence_start.tag);
	if (parse_children(reader, node, mapping ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT, depth + 1))
		return node;
	node_free(node);
	return NULL;
}

static struct node *parse_node(struct reader *reader, const yaml_event_t *event, unsigned depth)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return scalar_node(reader, event);
	case YAML_MAPPING_START_EVENT:
	case YAML_SEQUENCE_START_EVENT:
		return collection_node(reader, event, depth);
	case YAML_ALIAS_EVENT:
		error_add(reader->errors, reader->name, line_of(event), "aliases (*) are not allowed; write the value where it belongs, in quotes if it begins with \"*\"");
		return NULL;
	default:
		error_add(reader->errors, reader->name, line_of(event), "not YAML: something that is neither a value nor a list nor a mapping");
		return NULL;
	}
}

static void parse_stream(struct reader *reader, struct node **ret_root)
{
	bool more = true;
	for (unsigned documents = 0; more;) {
		yaml_event_t event;
		if (!next_event(reader, &event))
			return;
		more = event.type != YAML_STREAM_END_EVENT;
		if (event.type == YAML_DOCUMENT_START_EVENT && documents++ > 0) {
			error_add(reader->errors, reader->name, line_of(&event), "a second document begins here; a configuration is one document");
			more = false;
		} else if (event.type != YAML_STREAM_START_EVENT && event.type != YAML_DOCUMENT_START_EVENT && event.type != YAML_DOCUMENT_END_EVENT && more) {
			*ret_root = parse_node(reader, &event, 1);
			more = *ret_root != NULL;
		}
		yaml_event_delete(&event);
	}
}

enum status document_parse(const char *name, const char *text, size_t size, struct config_errors *errors, struct node **ret_root)
{
	*ret_root = NULL;
	if (size > DOCUMENT_SIZE_LIMIT) {
		error_add(errors, name, 0, "larger than 64 KiB");
		return STATUS_OK;
	}
	if (size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
		error_add(errors, name, 1, "begins with a byte order mark (BOM); save it as UTF-8 without one");
		return STATUS_OK;
	}
	if (size >= 2 && (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0)) {
		error_add(errors, name, 1, "is UTF-16; save it as UTF-8");
		return STATUS_OK;
	}
	struct reader reader = { .name = name, .text = text, .size = size, .errors = errors };
	if (!yaml_parser_initialize(&reader.parser))
		return STATUS_AGENT_INTERNAL;
	yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, size);
	parse_stream(&reader, ret_root);
	yaml_parser_delete(&reader.parser);
	return reader.out_of_memory ? STATUS_AGENT_INTERNAL : STATUS_OK;
}
