/* The envelope of an LDAPMessage as servers write it, cut after each octet, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "agent/directory/ldap_envelope.h"

enum { MOST = 4096, DONE = 12 };
#define ROW(literal) { literal, sizeof literal - 1 }
struct row {
	const char *octets;
	size_t size;
	int32_t message_id;
	size_t whole;
};

/* Of some only the head: the operation is not looked at. */
static const struct row GOOD[] = {
	{ "\x30\x0c\x02\x01\x07\x65\x07\x0a\x01\x00\x04\x00\x04\x00", 14, 7, 14 },                                                              /* searchResultDone, as OpenLDAP writes it */
	{ "\x30\x84\x00\x00\x00\x10\x02\x01\x02\x65\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00", 22, 2, 22 },                              /* and as Active Directory does */
	{ "\x30\x84\x00\x00\x00\x16\x02\x84\x00\x00\x00\x04\x7f\xff\xff\xff\x65\x84\x00\x00\x00\x06", 22, 0x7fffffff, 28 },                     /* the longest head */
	{ "\x30\x82\x01\x00\x02\x02\x01\x00\x64\x81\xf9", 11, 256, 260 },
	{ "\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x34\x04\x00\x04\x00", 14, 0, 14 },                                                              /* unsolicited */
	{ "\x30\x0f\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\xa0\x01\x30", 17, 1, 17 },                                                  /* with something behind the operation */
};

static const struct { const char *octets; size_t size; } BAD[] = {
	ROW("H"), ROW("\x16\x03\x01"), ROW("\x31\x0c"),              /* HTTP, TLS, a SET */
	ROW("\x30\x80"), ROW("\x30\x85\x00\x00\x00\x00\x0c"),        /* indefinite; a length of five octets */
	ROW("\x30\x82\x10\x01"), ROW("\x30\x84\xff\xff\xff\xff"),    /* too long */
	ROW("\x30\x00"), ROW("\x30\x02\x02\x00"), ROW("\x30\x03\x04\x01\x07"), ROW("\x30\x05\x02\x03\x01\x02\x03"),
	ROW("\x30\x03\x02\x01\x07"), ROW("\x30\x04\x02\x01\x07\x65"), /* no operation; half of one */
	ROW("\x30\x0c\x02\x00"), ROW("\x30\x0c\x02\x05"), ROW("\x30\x0c\x02\x80"), ROW("\x30\x0c\x02\x0b\x00"), /* no messageID */
	ROW("\x30\x0c\x02\x01\x80"), ROW("\x30\x0c\x02\x04\xff\xff\xff\xff"), /* a negative one */
	ROW("\x30\x0c\x02\x01\x07\x00"), ROW("\x30\x0c\x02\x01\x07\x30"), ROW("\x30\x0c\x02\x01\x07\x45"), ROW("\x30\x0c\x02\x01\x07\xa5"), ROW("\x30\x0c\x02\x01\x07\x7f"),
	ROW("\x30\x0c\x02\x01\x07\x65\x08"), ROW("\x30\x0c\x02\x01\x07\x65\x80"), ROW("\x30\x0c\x02\x01\x07\x65\x84\x00\x00\x01\x00"), /* an operation that reaches beyond */
};

static void reads_what_servers_write(void **state)
{
	for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
		struct ldap_envelope envelope;
		assert_true(ldap_envelope_read(bytes_of(GOOD[i].octets, GOOD[i].size), MOST, &envelope));
		assert_int_equal(envelope.size, GOOD[i].whole);
		assert_int_equal(envelope.message_id, GOOD[i].message_id);
		assert_int_equal(envelope.operation & 0xe0, 0x60);
	}
}

/* Nothing is said too early, and nothing is refused that may still become a message. */
static void waits_for_what_it_needs(void **state)
{
	for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
		bool told = false;
		for (size_t size = 0; size <= GOOD[i].size; size++) {
			struct ldap_envelope envelope;
			assert_true(ldap_envelope_read(bytes_of(GOOD[i].octets, size), MOST, &envelope));
			assert_true(envelope.size == (told || envelope.size != 0 ? GOOD[i].whole : 0));
			told |= envelope.size != 0;
		}
		assert_true(told);
	}
}

static void refuses_what_is_none(void **state)
{
	for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
		struct ldap_envelope envelope;
		uint8_t exact[16];
		memcpy(exact, BAD[i].octets, BAD[i].size);
		assert_false(ldap_envelope_read(bytes_of(exact, BAD[i].size), MOST, &envelope));
		assert_int_equal(envelope.size, 0);
	}
}

static void counts_what_is_most(void **state)
{
	struct ldap_envelope envelope;
	assert_true(ldap_envelope_read(bytes_of(GOOD[0].octets, GOOD[0].size), DONE, &envelope));
	assert_false(ldap_envelope_read(bytes_of(GOOD[0].octets, GOOD[0].size), DONE - 1, &envelope));
}

/* ldap_parse_extended_result asserts that there is a name where there is a responseName. */
static void refuses_a_name_that_libldap_does_not_survive(void **state)
{
	static const struct { const char *octets; size_t size; bool may; } ROWS[] = {
#define MESSAGE(length, operation, rest) "\x30" length "\x02\x01\x07\x78" operation "\x0a\x01\x00\x04\x00\x04\x00" rest
#define NAME_ROW(may, literal) { literal, sizeof literal - 1, may }
		NAME_ROW(true, MESSAGE("\x0c", "\x07", "")),
		NAME_ROW(true, MESSAGE("\x11", "\x0c", "\x8a\x03" "1.3")),
		NAME_ROW(true, MESSAGE("\x0f", "\x0a", "\x8b\x01" "u")),
		NAME_ROW(true, MESSAGE("\x15", "\x10", "\xa3\x02\x04\x00\x8a\x03" "1.3")),
		NAME_ROW(false, MESSAGE("\x0e", "\x09", "\x8a\x00")),
		NAME_ROW(false, MESSAGE("\x0f", "\x0a", "\x8a\x01\x00")),
		NAME_ROW(false, MESSAGE("\x0f", "\x0a", "\x8a\x81\x00")),
		NAME_ROW(false, MESSAGE("\x12", "\x0d", "\xa3\x02\x04\x00\x8a\x00")),
		NAME_ROW(false, MESSAGE("\x0e", "\x07", "\x8a\x00")), /* behind the operation's end */
		NAME_ROW(true, "\x30\x05\x02\x01\x07\x78\x00"),
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
		assert_int_equal(ldap_envelope_may_be_named(bytes_of(ROWS[i].octets, ROWS[i].size)), ROWS[i].may);
	assert_false(ldap_envelope_may_be_named(bytes_of(NULL, 0)));
}

static void tells_what_a_server_says(void **state)
{
	static const char LONG[] = "\x30\x12\x02\x01\x00\x78\x0d\x0a\x01\x34\x04\x00\x04\x06" "a\xc3\xbc\x0a" "bc", BROKEN[] = "\x30\x05\x02\x01\x00\x78\x00";
	char words[16];
	ldap_envelope_words(bytes_of(LONG, sizeof LONG - 1), words, sizeof words);
	assert_string_equal(words, "52 a\xc3\xbc?bc");
	ldap_envelope_words(bytes_of(LONG, sizeof LONG - 1), words, 6); /* cut within a character */
	assert_string_equal(words, "52 a?");
	ldap_envelope_words(bytes_of(BROKEN, sizeof BROKEN - 1), words, sizeof words);
	assert_string_equal(words, "");
	ldap_envelope_words(bytes_of(NULL, 0), words, sizeof words);
	assert_string_equal(words, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(reads_what_servers_write), cmocka_unit_test(waits_for_what_it_needs), cmocka_unit_test(refuses_what_is_none), cmocka_unit_test(counts_what_is_most),
		cmocka_unit_test(refuses_a_name_that_libldap_does_not_survive), cmocka_unit_test(tells_what_a_server_says) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
