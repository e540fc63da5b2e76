#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/nfc.h"

static bool is_nfc(const char *text)
{
	bool nfc = false;
	assert_int_equal(nfc_check(bytes_of_string(text), &nfc), STATUS_OK);
	return nfc;
}

static void composed_and_not(void **state)
{
	static const struct { const char *good, *bad; } rows[] = {
		{ "\xc3\xa4", "a\xcc\x88" },                         /* ä: U+00E4; a U+0308 */
		{ "\xea\xb0\x81", "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8" }, /* Hangul: a syllable; its three jamo */
		{ "\xce\xa9", "\xe2\x84\xa6" },                      /* Greek Omega; the Ohm sign, which decomposes to it alone */
		{ "\xe0\xa4\x95\xe0\xa4\xbc", "\xe0\xa5\x98" },      /* an excluded composition: its parts are the form */
		{ "\xe1\xb9\xa9", "\xe1\xb9\xa1\xcc\xa3" },          /* s with both dots; s with the one above, and the one below apart: only a reordering shows it */
		{ "q\xcc\xa3\xcc\x87", "q\xcc\x87\xcc\xa3" },        /* marks out of their canonical order */
		{ "\xcc\x88" "a", "\xcd\x84" },                      /* a mark without a letter; one that decomposes */
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_true(is_nfc(rows[i].good));
		assert_false(is_nfc(rows[i].bad));
	}
	assert_true(is_nfc(""));
	assert_true(is_nfc("Old-Marble-Step-7 \xf0\x9f\x98\x80"));
}

static void long_ones(void **state)
{
	char text[256 * 4 + 1] = "";
	for (size_t i = 0; i < 256; i++)
		strcat(text, "\xe1\xbe\x82"); /* U+1F82, which decomposes into four */
	assert_true(is_nfc(text));
	strcpy(text, "a");
	for (size_t i = 0; i < 255; i++)
		strcat(text, i % 2 ? "\xcd\x84" : "\xcc\xa3"); /* marks of two classes, alternating, one of which decomposes */
	assert_false(is_nfc(text));
}

/* "check": one answer a line, y or n, for the hexadecimal UTF-8 on each line of the input: nfc_against_unicodedata.py compares them with another implementation's. */
static int answer(void)
{
	char line[8192];
	uint8_t text[4096];
	while (fgets(line, sizeof line, stdin)) {
		size_t size;
		bool nfc;
		if (hex_decode(bytes_of(line, strcspn(line, "\n")), text, sizeof text, &size) != STATUS_OK || !utf8_valid(bytes_of(text, size)) || nfc_check(bytes_of(text, size), &nfc) != STATUS_OK)
			return 1;
		putchar(nfc ? 'y' : 'n');
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(composed_and_not), cmocka_unit_test(long_ones) };
	return argc > 1 && strcmp(argv[1], "check") == 0 ? answer() : cmocka_run_group_tests_name("nfc", tests, NULL, NULL);
}
