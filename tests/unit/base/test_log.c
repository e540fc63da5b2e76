#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/log_line.h"

/* The line as it is printed, without its time. */
static char *printed(const struct log_line *line, enum log_format format)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	log_line_print(line, format, out);
	fclose(out);
	return text;
}

static void expect_text(const struct log_field *fields, const char *sentence, const char *expected)
{
	struct log_line *line = log_line_new(LOG_INFO, "request.end", fields, sentence);
	AUTO_FREE char *text = printed(line, LOG_FORMAT_TEXT);
	assert_string_equal(text + CLOCK_TEXT_SIZE, expected);
	free(line);
}

static void prints_text(void **state)
{
	expect_text(LOG_FIELDS({ LOG_CODE, "ok" }, { LOG_SERVER, NULL }, { LOG_DURATION_MS, "12" }), "reset by dc1", "info request.end code=ok duration_ms=12 : reset by dc1\n");
	expect_text(NULL, "done", "info request.end : done\n");
	expect_text(LOG_FIELDS({ "a", "b c" }, { "d", "" }, { "e", "x=\"y\\" }), "", "info request.end a=\"b c\" d=\"\" e=\"x=\\\"y\\\\\" : \n");
}

static void nothing_forges_a_line(void **state)
{
	expect_text(LOG_FIELDS({ "v", "a\nb\x1b[31m\x7f" }), "c\r\nd", "info request.end v=a\\x0ab\\x1b[31m\\x7f : c\\x0d\\x0ad\n");
	/* Invalid UTF-8, a C1 control, a line separator, a right-to-left override; and what is fine. */
	expect_text(LOG_FIELDS({ "v", "\xFF\xC2\x9B\xE2\x80\xA8\xE2\x80\xAE\xC3" }), "gr\xC3\xBC\xC3\x9F", "info request.end v=\\xff\\xc2\\x9b\\xe2\\x80\\xa8\\xe2\\x80\\xae\\xc3 : gr\xC3\xBC\xC3\x9F\n");
}

static void values_are_bounded(void **state)
{
	char value[3000], *text;
	memset(value, 'x', sizeof value);
	value[1023] = '\xC3';
	value[1024] = '\xBC';
	value[sizeof value - 1] = '\0';
	struct log_line *line = log_line_new(LOG_ERR, "e", LOG_FIELDS({ "v", value }), value);
	/* Cut before the character that stands astride the limit. */
	assert_int_equal(strlen(line->fields[0].value), 1023 + 3);
	assert_string_equal(line->fields[0].value + 1020, "xxx...");
	text = printed(line, LOG_FORMAT_TEXT);
	assert_true(utf8_valid(bytes_of_string(text)));
	free(text);
	free(line);
	/* All escaped is the longest there is. */
	memset(value, '\x01', sizeof value - 1);
	line = log_line_new(LOG_ERR, "e", LOG_FIELDS({ "v", value }), value);
	assert_int_equal(strlen(line->text), 4 * 1024 + 3);
	free(line);
}

static void prints_json(void **state)
{
	struct log_line *line = log_line_new(LOG_WARNING, "channel.down", LOG_FIELDS({ LOG_CODE, "tls.name" }, { "peer", "a\"b\\c\n\xFF" }), "it \"went\" away");
	AUTO_FREE char *text = printed(line, LOG_FORMAT_JSON);
	assert_int_equal(strcspn(text, "\n"), strlen(text) - 1);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "level")), "warning");
	assert_string_equal(json_string_value(json_object_get(root, "event")), "channel.down");
	assert_string_equal(json_string_value(json_object_get(root, "code")), "tls.name");
	assert_string_equal(json_string_value(json_object_get(root, "peer")), "a\"b\\c\\x0a\\xff");
	assert_string_equal(json_string_value(json_object_get(root, "message")), "it \"went\" away");
	assert_int_equal(strlen(json_string_value(json_object_get(root, "time"))), 24);
	json_decref(root);
	free(line);
}

/* journalctl and syslog show the message alone: the word that the documentation is searched for, and the fields, stand in it. */
static void the_journals_message_is_the_whole_line(void **state)
{
	struct log_line *line = log_line_new(LOG_CRIT, "agent.clone", LOG_FIELDS({ "peer", "192.0.2.1:5" }, { "other", "a b" }), "two instances");
	AUTO_FREE char *text = printed(line, LOG_FORMAT_JOURNAL);
	assert_string_equal(text, "agent.clone peer=192.0.2.1:5 other=\"a b\" : two instances");
	free(line);
}

static void message_ids_are_derived(void **state)
{
	char id[33];
	/* printf 'writebackd request.end' | sha256sum | cut -c 1-32 */
	log_line_message_id("request.end", id);
	uint8_t digest[32];
	char expected[65];
	sha256(bytes_of_string("writebackd request.end"), digest);
	hex_encode(bytes_of(digest, 32), expected);
	expected[32] = '\0';
	assert_string_equal(id, expected);
}

static void finds_the_journal(void **state)
{
	struct stat facts;
	char stream[64];
	unsetenv("JOURNAL_STREAM");
	assert_int_equal(log_line_auto_format(), LOG_FORMAT_TEXT);
	assert_int_equal(fstat(STDERR_FILENO, &facts), 0);
	snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)facts.st_dev, (unsigned long long)facts.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	assert_int_equal(log_line_auto_format(), LOG_FORMAT_JOURNAL);
	/* A child whose stderr was turned elsewhere. */
	setenv("JOURNAL_STREAM", "1:1", 1);
	assert_int_equal(log_line_auto_format(), LOG_FORMAT_TEXT);
	setenv("JOURNAL_STREAM", "nonsense", 1);
	assert_int_equal(log_line_auto_format(), LOG_FORMAT_TEXT);
	unsetenv("JOURNAL_STREAM");
}

/* Turns stderr to a pipe; returns its reading end. */
static int capture(int *ret_stderr)
{
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	*ret_stderr = dup(STDERR_FILENO);
	assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
	close(ends[1]);
	return ends[0];
}

/* What was written until stderr is turned back, which ends the pipe. */
static char *release(int take_fd, int take_stderr)
{
	dup2(take_stderr, STDERR_FILENO);
	close(take_stderr);
	char *text = calloc(1, 1 << 22);
	size_t size = 0;
	for (ssize_t got; (got = read(take_fd, text + size, (1 << 22) - 1 - size)) > 0;)
		size += (size_t)got;
	close(take_fd);
	return text;
}

static unsigned count_lines(const char *text)
{
	unsigned lines = 0;
	for (; (text = strchr(text, '\n')) != NULL; text++)
		lines++;
	return lines;
}

static void writes_at_once_before_the_start(void **state)
{
	int saved, fd = capture(&saved);
	log_set_level(LOG_NOTICE);
	log_event(LOG_INFO, "a", NULL, "not this");
	log_event(LOG_NOTICE, "b", NULL, "but %s", "this");
	AUTO_FREE char *text = release(fd, saved);
	assert_string_equal(text + CLOCK_TEXT_SIZE, "notice b : but this\n");
}

static void keeps_the_order(void **state)
{
	int saved, fd = capture(&saved);
	log_start("test", LOG_FORMAT_TEXT, LOG_INFO);
	for (int i = 0; i < 200; i++)
		log_event(LOG_INFO, "n", NULL, "%d", i);
	log_event(LOG_DEBUG, "n", NULL, "below the level");
	log_stop();
	AUTO_FREE char *text = release(fd, saved);
	assert_int_equal(count_lines(text), 200);
	assert_non_null(strstr(text, "info n : 199\n"));
	assert_true(strstr(text, "info n : 42\n") < strstr(text, "info n : 43\n"));
}

static void a_full_sink_blocks_nobody(void **state)
{
	int saved, fd = capture(&saved);
	uint64_t dropped = log_dropped();
	char filler[900];
	memset(filler, 'x', sizeof filler - 1);
	filler[sizeof filler - 1] = '\0';
	log_start("test", LOG_FORMAT_TEXT, LOG_INFO);
	int64_t longest = 0;
	/* The pipe takes 64 KiB, the queue 4,096 lines; the rest is counted. */
	for (int i = 0; i < 6000; i++) {
		int64_t before = clock_monotonic_us();
		log_event(LOG_INFO, "n", NULL, "%s", filler);
		int64_t took = clock_monotonic_us() - before;
		longest = took > longest ? took : longest;
	}
	assert_in_range(log_dropped() - dropped, 6000 - 4096 - 80, 6000 - 4096);
	assert_in_range(longest, 0, 3000000);
	/* The sink comes back: everything that was queued arrives, and the count. */
	char *text = calloc(1, 1 << 23);
	size_t size = 0;
	while (strstr(text + (size > 4096 ? size - 4096 : 0), "log.dropped") == NULL) {
		ssize_t got = read(fd, text + size, (1 << 23) - 1 - size);
		assert_true(got > 0);
		size += (size_t)got;
	}
	assert_in_range(count_lines(text), 4096, 4096 + 80);
	free(text);
	log_stop();
	free(release(fd, saved));
}

static void a_stuck_sink_does_not_hold_the_end_up(void **state)
{
	int saved, fd = capture(&saved);
	char filler[1000];
	memset(filler, 'x', sizeof filler - 1);
	filler[sizeof filler - 1] = '\0';
	log_start("test", LOG_FORMAT_TEXT, LOG_INFO);
	for (int i = 0; i < 100; i++)
		log_event(LOG_INFO, "n", NULL, "%s", filler);
	int64_t before = clock_monotonic_us();
	log_stop();
	assert_in_range(clock_monotonic_us() - before, 900000, 2500000);
	/* Lets the writer go, which frees its lines. */
	free(release(fd, saved));
}

static void a_budget_ends_and_says_what_it_left_out(void **state)
{
	struct log_budget budget = { 0 };
	for (int i = 0; i < 60; i++)
		assert_true(log_allowed(&budget));
	for (int i = 0; i < 7; i++)
		assert_false(log_allowed(&budget));
	budget.since_us -= 2000000;
	int saved, fd = capture(&saved);
	assert_true(log_allowed(&budget));
	assert_false(log_allowed(&budget));
	char *text = release(fd, saved);
	assert_non_null(strstr(text, "log.withheld"));
	assert_non_null(strstr(text, "7 lines"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prints_text), cmocka_unit_test(nothing_forges_a_line), cmocka_unit_test(values_are_bounded), cmocka_unit_test(prints_json),
		cmocka_unit_test(the_journals_message_is_the_whole_line), cmocka_unit_test(message_ids_are_derived), cmocka_unit_test(finds_the_journal),
		cmocka_unit_test(writes_at_once_before_the_start), cmocka_unit_test(keeps_the_order), cmocka_unit_test(a_full_sink_blocks_nobody),
		cmocka_unit_test(a_stuck_sink_does_not_hold_the_end_up),
		cmocka_unit_test(a_budget_ends_and_says_what_it_left_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
