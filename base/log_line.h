/* log_line: one line of the log as data, and its three written forms. Private to base: use base/log.h. */
#ifndef BASE_LOG_LINE_H
#define BASE_LOG_LINE_H

#include <stdint.h>
#include <stdio.h>

#include "base/log.h"

/* Of a field's value and of the sentence, before escaping. */
#define LOG_TEXT_LIMIT 1024
#define LOG_FIELDS_LIMIT 32

/* One allocation; free() frees it. All texts are escaped: valid UTF-8 without control characters. */
struct log_line {
	struct log_line *next;
	int level;
	int64_t time_ms;
	const char *event;
	const char *text;
	size_t count;
	struct log_field fields[LOG_FIELDS_LIMIT];
};

/* With the present time; NULL when memory is out. */
struct log_line *log_line_new(int level, const char *event, const struct log_field *fields, const char *text);
/* LOG_FORMAT_JOURNAL where stderr is the journal's stream (sd_journal_send(3), $JOURNAL_STREAM), else LOG_FORMAT_TEXT. */
enum log_format log_line_auto_format(void);
/* Blocks until the sink has taken it. */
void log_line_write(const struct log_line *line, enum log_format format, const char *program);
/* The text and JSON forms, with a newline at the end; the journal's message is the text form without time, level and newline. */
void log_line_print(const struct log_line *line, enum log_format format, FILE *out);
/* 32 hexadecimal digits and a NUL: what journald's catalog knows the event by. */
void log_line_message_id(const char *event, char out[33]);

#endif
