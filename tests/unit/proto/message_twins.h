/* message_twins: an accepted message and its rejected twins, each with one member taken away or of another value. For tests. */
#ifndef TESTS_MESSAGE_TWINS_H
#define TESTS_MESSAGE_TWINS_H

#include <string.h>

#include "proto/messages.h"

struct twin {
	const char *member;
	const char *value;   /* JSON text; NULL: the member is taken away */
	enum status status;
	const char *named;   /* what *ret_member says; NULL: the member */
};

/* `text` with the twin's difference; free it. */
static inline char *twin_text(const char *text, const char *member, const char *value)
{
	json_t *json = json_loads(text, 0, NULL);

	assert_non_null(json);
	if (value) {
		json_t *new_value = json_loads(value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		assert_non_null(new_value);
		json_object_set_new(json, member, new_value);
	} else {
		assert_int_equal(json_object_del(json, member), 0);
	}
	char *out = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return out;
}

/* Parses, clears on success and gives the status. */
typedef enum status (*twin_parser)(struct bytes payload, const char **ret_member);

static inline void expect_twins(const char *text, twin_parser parser, const struct twin *twins, size_t count)
{
	const char *member = NULL;

	assert_int_equal(parser(bytes_of_string(text), &member), STATUS_OK);
	for (size_t i = 0; i < count; i++) {
		AUTO_FREE char *twin = twin_text(text, twins[i].member, twins[i].value);

		print_message("# %s: %.100s\n", twins[i].member, twins[i].value ? twins[i].value : "-");
		assert_string_equal(status_code(parser(bytes_of_string(twin), &member)), status_code(twins[i].status));
		if (twins[i].status != STATUS_OK)
			assert_string_equal(member, twins[i].named ? twins[i].named : twins[i].member);
	}
}
#define EXPECT_TWINS(text, parser, twins) expect_twins(text, parser, twins, sizeof(twins) / sizeof(*(twins)))

/* What no message may be, whatever its members. */
static inline void expect_no_message(twin_parser parser, enum status status, const char *whole, const char *text)
{
	static const char *const others[] = { "", "[]", "[{}]", "null", "\"a\"", "{", "{}}", "{\"iss\":1,\"iss\":1}", "\xef\xbb\xbf{}", "{\"a\":\"\xff\"}" };
	const char *member;

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
		member = NULL;
		assert_int_equal(parser(bytes_of_string(others[i]), &member), status);
		assert_string_equal(member, whole);
	}
	assert_int_equal(parser(bytes_of_string("{}"), &member), status);
	assert_string_not_equal(member, whole);
	for (size_t size = 0; size < strlen(text); size++)
		assert_int_equal(parser(bytes_of(text, size), &member), status);
}

/* Text of `count` letters in quotes. */
static inline char *letters(size_t count)
{
	char *text = malloc(count + 3);

	memset(text, 'a', count + 2);
	text[0] = text[count + 1] = '"';
	text[count + 2] = '\0';
	return text;
}

#endif
