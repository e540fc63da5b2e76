#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

static void base64url_goes_both_ways(void **state)
{
	/* RFC 4648 section 10, in the URL alphabet without padding. */
	static const struct { const char *plain, *text; } rows[] = {
		{ "", "" }, { "f", "Zg" }, { "fo", "Zm8" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg" }, { "fooba", "Zm9vYmE" }, { "foobar", "Zm9vYmFy" },
		{ "\xFB\xFF\xBF", "-_-_" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char text[16];
		uint8_t plain[16];
		size_t size;
		base64url_encode(bytes_of_string(rows[i].plain), text);
		assert_string_equal(text, rows[i].text);
		assert_int_equal(strlen(text), BASE64URL_SIZE(strlen(rows[i].plain)));
		assert_int_equal(base64url_decode(bytes_of_string(rows[i].text), plain, sizeof plain, &size), STATUS_OK);
		assert_true(bytes_equal(bytes_of(plain, size), bytes_of_string(rows[i].plain)));
	}
}

static void base64url_refuses_all_else(void **state)
{
	static const char *const wrong[] = { "Z", "Zg==", "Zm9vY", "Zh", "Zm9", "Zm+v", "Zm/v", "Zm9v\n", " Zm9v", "Zm9=", "Zm9v Zm9v", "Z\xC3\xA9v" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		uint8_t out[16];
		size_t size;
		assert_int_equal(base64url_decode(bytes_of_string(wrong[i]), out, sizeof out, &size), STATUS_LOCAL_INPUT);
	}
}

static void base64url_knows_each_character(void **state)
{
	const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	for (unsigned c = 0; c < 256; c++) {
		char text[4] = { (char)c, (char)c, (char)c, (char)c };
		uint8_t out[3];
		size_t size;
		const char *place = c == 0 ? NULL : strchr(alphabet, (int)c);
		enum status status = base64url_decode(bytes_of(text, 4), out, sizeof out, &size);
		assert_int_equal(status, place == NULL ? STATUS_LOCAL_INPUT : STATUS_OK);
		if (place != NULL)
			assert_int_equal(out[2] & 63, place - alphabet);
	}
}

static void base64url_keeps_to_capacity(void **state)
{
	uint8_t out[2] = { 1, 2 };
	size_t size;
	assert_int_equal(base64url_decode(bytes_of_string("Zm9v"), out, 2, &size), STATUS_LOCAL_INPUT);
	assert_int_equal(base64url_decode(bytes_of_string("Zm8"), out, 2, &size), STATUS_OK);
	assert_int_equal(base64url_decode(bytes_of(NULL, 0), NULL, 0, &size), STATUS_OK);
	assert_int_equal(size, 0);
}

static void base64url_makes_a_string(void **state)
{
	AUTO_FREE char *text = base64url_encode_new(bytes_of("\0\0\1", 3));
	assert_string_equal(text, "AAAB");
}

static void hex_goes_both_ways(void **state)
{
	char text[9];
	uint8_t out[4];
	size_t size;
	hex_encode(bytes_of("\x00\x7F\xAB\xFF", 4), text);
	assert_string_equal(text, "007fabff");
	assert_int_equal(hex_decode(bytes_of_string("007fABff"), out, sizeof out, &size), STATUS_OK);
	assert_memory_equal(out, "\x00\x7F\xAB\xFF", 4);
	assert_int_equal(hex_decode(bytes_of_string("007"), out, sizeof out, &size), STATUS_LOCAL_INPUT);
	assert_int_equal(hex_decode(bytes_of_string("0g"), out, sizeof out, &size), STATUS_LOCAL_INPUT);
	assert_int_equal(hex_decode(bytes_of_string("0011223344"), out, sizeof out, &size), STATUS_LOCAL_INPUT);
}

static void utf8_is_judged_by_rfc_3629(void **state)
{
	static const char *const valid[] = { "", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF" };
	static const char *const invalid[] = {
		"\x80", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF", "\xE2\x82", "\xE2\x82\x41", "\xF0\x8F\xBF\xBF",
		"\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xF0\x90\x80", "a\xFE",
	};
	for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++)
		assert_true(utf8_valid(bytes_of_string(valid[i])));
	for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++)
		assert_false(utf8_valid(bytes_of_string(invalid[i])));
	assert_true(utf8_valid(bytes_of("\0", 1)));
}

static void a_text_is_mended(void **state)
{
	static const char *const rows[][2] = {
		{ "", "" }, { "dc1: \xC3\xA9\xE2\x82\xAC\xF0\x9F\x94\x91", "dc1: \xC3\xA9\xE2\x82\xAC\xF0\x9F\x94\x91" }, { "a\xC3", "a?" }, { "a\xF0\x9F\x94", "a???" },
		{ "\xC3z\xFF", "?z?" }, { "a\n\x1b[2J\x7F\t", "a??[2J??" }, { "\xC2\x9B" "31m\xC2\xA0", "??31m\xC2\xA0" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char text[32];
		snprintf(text, sizeof text, "%s", rows[i][0]);
		utf8_mend(text);
		assert_string_equal(text, rows[i][1]);
	}
}

static void utf8_becomes_utf16(void **state)
{
	/* U+0061 U+00E9 U+20AC U+1F511 */
	struct bytes text = bytes_of_string("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x94\x91");
	uint8_t out[10];
	assert_int_equal(utf8_utf16_units(text), 5);
	utf8_to_utf16le(text, out);
	assert_memory_equal(out, "\x61\x00\xE9\x00\xAC\x20\x3D\xD8\x11\xDD", 10);
	size_t offset = 0;
	static const uint32_t points[] = { 0x61, 0xE9, 0x20AC, 0x1F511 };
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(utf8_next(text, &offset), points[i]);
	assert_int_equal(offset, text.size);
}

/* Every code point there is. */
static void utf8_next_undoes_each_encoding(void **state)
{
	for (uint32_t point = 0x80; point <= 0x10FFFF; point += point < 0x3000 ? 1 : 257) {
		uint8_t text[4];
		size_t size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4, offset = 0;
		uint32_t rest = point;
		for (size_t i = size; i-- > 1; rest >>= 6)
			text[i] = (uint8_t)(0x80 | (rest & 0x3F));
		text[0] = (uint8_t)((0xF00u >> size) | rest);
		assert_int_equal(utf8_valid(bytes_of(text, size)), point < 0xD800 || point > 0xDFFF);
		assert_int_equal(utf8_next(bytes_of(text, size), &offset), point);
	}
}

static void uuids_have_one_form(void **state)
{
	char a[UUID_SIZE], b[UUID_SIZE];
	uuid_random(a);
	uuid_random(b);
	assert_true(uuid_valid(a));
	assert_string_not_equal(a, b);
	assert_int_equal(a[14], '4');
	assert_non_null(strchr("89ab", a[19]));
	static const char *const wrong[] = {
		"", "6f9619ff-8b86-d011-b42d-00cf4fc964f", "6f9619ff-8b86-d011-b42d-00cf4fc964fff", "6F9619ff-8b86-d011-b42d-00cf4fc964ff",
		"6f9619ff08b86-d011-b42d-00cf4fc964ff", "{6f9619ff-8b86-d011-b42d-00cf4fc964ff}", "6f9619ff-8b86-d011-b42d-00cf4fc964fg",
		"6f9619ff8b86d011b42d00cf4fc964ff",
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_false(uuid_valid(wrong[i]));
	assert_false(uuid_valid(NULL));
}

static void guids_are_mixed_endian(void **state)
{
	/* The example of MS-DTYP 2.3.4.3 in both forms. */
	const uint8_t guid[16] = { 0xFF, 0x19, 0x96, 0x6F, 0x86, 0x8B, 0x11, 0xD0, 0xB4, 0x2D, 0x00, 0xCF, 0x4F, 0xC9, 0x64, 0xFF };
	char text[UUID_SIZE];
	uint8_t back[16];
	guid_format(guid, text);
	assert_string_equal(text, "6f9619ff-8b86-d011-b42d-00cf4fc964ff");
	assert_int_equal(guid_parse(text, back), STATUS_OK);
	assert_memory_equal(back, guid, 16);
	assert_int_equal(guid_parse("6f9619ff-8b86-d011-b42d-00cf4fc964f", back), STATUS_LOCAL_INPUT);
}

static void bytes_are_compared_whole(void **state)
{
	assert_true(bytes_equal(bytes_of(NULL, 0), bytes_of("", 0)));
	assert_true(bytes_equal(bytes_of_string("abc"), bytes_of_string("abc")));
	assert_false(bytes_equal(bytes_of_string("abc"), bytes_of_string("abd")));
	assert_false(bytes_equal(bytes_of_string("abc"), bytes_of_string("ab")));
	assert_int_equal(bytes_of_string(NULL).size, 0);
}

static void sha256_is_the_standards(void **state)
{
	uint8_t digest[32];
	char text[65];
	sha256(bytes_of_string("abc"), digest);
	hex_encode(bytes_of(digest, sizeof digest), text);
	assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha256(bytes_of(NULL, 0), digest);
	hex_encode(bytes_of(digest, sizeof digest), text);
	assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base64url_goes_both_ways),     cmocka_unit_test(base64url_refuses_all_else), cmocka_unit_test(base64url_knows_each_character),
		cmocka_unit_test(base64url_keeps_to_capacity),  cmocka_unit_test(base64url_makes_a_string),   cmocka_unit_test(hex_goes_both_ways),
		cmocka_unit_test(utf8_is_judged_by_rfc_3629),   cmocka_unit_test(a_text_is_mended), cmocka_unit_test(utf8_becomes_utf16),         cmocka_unit_test(utf8_next_undoes_each_encoding),
		cmocka_unit_test(uuids_have_one_form),          cmocka_unit_test(guids_are_mixed_endian),     cmocka_unit_test(bytes_are_compared_whole),
		cmocka_unit_test(sha256_is_the_standards),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
