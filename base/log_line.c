#define SD_JOURNAL_SUPPRESS_LOCATION

#include "base/log_line.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

static const char *const level_words[] = {
	[LOG_EMERG] = "critical", [LOG_ALERT] = "critical", [LOG_CRIT] = "critical", [LOG_ERR] = "error",
	[LOG_WARNING] = "warning", [LOG_NOTICE] = "notice", [LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

/* ---- making ---- */

/* Controls (C0, DEL, C1), line separators and what turns the direction of writing: they would let a value forge or hide text on a terminal. */
static bool is_hidden(uint32_t point)
{
	return point < 0x20 || (point >= 0x7F && point < 0xA0) || point == 0x2028 || point == 0x2029 || (point >= 0x202A && point <= 0x202E) ||
	       (point >= 0x2066 && point <= 0x2069) || point == 0xFEFF;
}

static size_t sequence_size(uint8_t first)
{
	return first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
}

/* The size of the printable character at text, 0 where its first byte is to be escaped. */
static size_t printable(const char *text, size_t size)
{
	size_t length = sequence_size((uint8_t)text[0]), offset = 0;
	if (length > size || !utf8_valid(bytes_of(text, length)))
		return 0;
	return is_hidden(utf8_next(bytes_of(text, length), &offset)) ? 0 : length;
}

/* Appends at most LOG_TEXT_LIMIT bytes of text, escaped, and a NUL; returns what stands behind it. */
static char *append_escaped(char *out, const char *text)
{
	size_t size = strnlen(text, LOG_TEXT_LIMIT);
	bool cut = text[size] != '\0';
	/* Not in the middle of a character. */
	while (cut && size > 0 && ((uint8_t)text[size] & 0xC0) == 0x80)
		size--;
	for (size_t i = 0; i < size;) {
		size_t length = printable(text + i, size - i);
		if (length == 0) {
			out += sprintf(out, "\\x%02x", (uint8_t)text[i++]);
			continue;
		}
		memcpy(out, text + i, length);
		out += length;
		i += length;
	}
	if (cut)
		out += sprintf(out, "...");
	*out = '\0';
	return out + 1;
}

static size_t escaped_limit(const char *text)
{
	return strnlen(text, LOG_TEXT_LIMIT) * 4 + sizeof "...";
}

struct log_line *log_line_new(int level, const char *event, const struct log_field *fields, const char *text)
{
	size_t size = sizeof(struct log_line) + escaped_limit(event) + escaped_limit(text), rows = 0;
	for (const struct log_field *field = fields; field != NULL && field->name != NULL && rows < LOG_FIELDS_LIMIT; field++)
		if (field->value != NULL) {
			size += escaped_limit(field->name) + escaped_limit(field->value);
			rows++;
		}
	struct log_line *line = malloc(size);
	if (line == NULL)
		return NULL;
	*line = (struct log_line){ .level = level < LOG_EMERG || level > LOG_DEBUG ? LOG_ERR : level, .time_ms = clock_now_ms() };
	char *at = (char *)(line + 1);
	line->event = at;
	at = append_escaped(at, event);
	line->text = at;
	at = append_escaped(at, text);
	for (const struct log_field *field = fields; line->count < rows; field++) {
		if (field->value == NULL)
			continue;
		struct log_field *copy = &line->fields[line->count++];
		copy->name = at;
		at = append_escaped(at, field->name);
		copy->value = at;
		at = append_escaped(at, field->value);
	}
	return line;
}

/* ---- text and JSON ---- */

static void print_quoted(FILE *out, const char *text)
{
	putc('"', out);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', out);
		putc(*text, out);
	}
	putc('"', out);
}

static void print_message(const struct log_line *line, FILE *out)
{
	fputs(line->event, out);
	for (size_t i = 0; i < line->count; i++) {
		const char *value = line->fields[i].value;
		fprintf(out, " %s=", line->fields[i].name);
		if (value[0] == '\0' || strpbrk(value, " \"=") != NULL)
			print_quoted(out, value);
		else
			fputs(value, out);
	}
	fprintf(out, " : %s", line->text);
}

static void print_json(const struct log_line *line, const char *time, FILE *out)
{
	fprintf(out, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":", time, level_words[line->level]);
	print_quoted(out, line->event);
	for (size_t i = 0; i < line->count; i++) {
		putc(',', out);
		print_quoted(out, line->fields[i].name);
		putc(':', out);
		print_quoted(out, line->fields[i].value);
	}
	fputs(",\"message\":", out);
	print_quoted(out, line->text);
	fputs("}\n", out);
}

void log_line_print(const struct log_line *line, enum log_format format, FILE *out)
{
	char time[CLOCK_TEXT_SIZE];
	clock_format(line->time_ms, time);
	if (format == LOG_FORMAT_JSON) {
		print_json(line, time, out);
	} else if (format == LOG_FORMAT_JOURNAL) {
		print_message(line, out);
	} else {
		fprintf(out, "%s %s ", time, level_words[line->level]);
		print_message(line, out);
		putc('\n', out);
	}
}

/* ---- sinks ---- */

static void write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t written = write(fd, data, size);
		if (written < 0 && errno == EAGAIN) {
			struct pollfd writable = { .fd = fd, .events = POLLOUT };
			poll(&writable, 1, -1);
			continue;
		}
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return;
		data += written;
		size -= (size_t)written;
	}
}

/* malloc'ed; NULL when memory is out. */
static char *print_new(const struct log_line *line, enum log_format format, size_t *ret_size)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, ret_size);
	if (out == NULL)
		return NULL;
	log_line_print(line, format, out);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

/* In one write, so that lines of several processes do not mix. */
static void write_stderr(const struct log_line *line, enum log_format format)
{
	size_t size;
	AUTO_FREE char *text = print_new(line, format, &size);
	if (text != NULL)
		write_all(STDERR_FILENO, text, size);
}

void log_line_message_id(const char *event, char out[33])
{
	AUTO_FREE char *name = NULL;
	uint8_t digest[32] = { 0 };
	if (asprintf(&name, "writebackd %s", event) >= 0)
		sha256(bytes_of_string(name), digest);
	hex_encode(bytes_of(digest, 16), out);
}

static bool add_entry(struct iovec *entries, int *count, const char *name, const char *value)
{
	char *text;
	int size = asprintf(&text, "%s=%s", name, value);
	if (size < 0)
		return false;
	entries[(*count)++] = (struct iovec){ .iov_base = text, .iov_len = (size_t)size };
	return true;
}

static bool add_field(struct iovec *entries, int *count, const struct log_field *field)
{
	char name[64];
	snprintf(name, sizeof name, "WB_%s", field->name);
	for (char *c = name; *c != '\0'; c++)
		*c = isalnum((unsigned char)*c) ? (char)toupper((unsigned char)*c) : '_';
	return add_entry(entries, count, name, field->value);
}

static bool write_journal(const struct log_line *line, const char *program)
{
	struct iovec entries[LOG_FIELDS_LIMIT + 5];
	int count = 0;
	char id[33];
	const char priority[] = { (char)('0' + line->level), '\0' };
	log_line_message_id(line->event, id);
	size_t size;
	AUTO_FREE char *message = print_new(line, LOG_FORMAT_JOURNAL, &size);
	/* Whoever reads the plain journal, or has it forwarded to syslog, sees the message alone: the whole line is in it. */
	bool made = message != NULL && add_entry(entries, &count, "MESSAGE", message) && add_entry(entries, &count, "PRIORITY", priority) &&
	            add_entry(entries, &count, "MESSAGE_ID", id) && add_entry(entries, &count, "SYSLOG_IDENTIFIER", program) &&
	            add_entry(entries, &count, "WB_EVENT", line->event);
	for (size_t i = 0; i < line->count && made; i++)
		made = add_field(entries, &count, &line->fields[i]);
	bool sent = made && sd_journal_sendv(entries, count) >= 0;
	while (count > 0)
		free(entries[--count].iov_base);
	return sent;
}

enum log_format log_line_auto_format(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat facts;
	if (stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &facts) == 0 && facts.st_dev == device &&
	    facts.st_ino == inode)
		return LOG_FORMAT_JOURNAL;
	return LOG_FORMAT_TEXT;
}

void log_line_write(const struct log_line *line, enum log_format format, const char *program)
{
	if (format != LOG_FORMAT_JOURNAL || !write_journal(line, program))
		write_stderr(line, format);
}
