/* Blobs as a Samba controller stores them, MS-ADTS 3.1.1.1.9; and Active Directory's times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "agent/directory/ad_time.h"
#include "agent/directory/repl_metadata.h"

/* Two records: 0x00000000 and unicodePwd, version 3, second 0x032113B54A, USN 0x102A. */
static const uint8_t BLOB[] = {
	1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 1, 0, 0, 0, 0xcf, 0xb0, 0x13, 0x21, 3, 0, 0, 0, 0x0b, 0x83, 0x74, 1, 0xee, 0xa, 0xb7, 0x44, 0x8b, 0xc1, 0xba, 0xbc, 0x11, 0xe9, 0x51, 0xb7, 0xb9, 0xf, 0, 0, 0, 0, 0, 0, 0xb9, 0xf, 0, 0, 0, 0, 0, 0,
	0x5a, 0, 9, 0, 3, 0, 0, 0, 0x4a, 0xb5, 0x13, 0x21, 3, 0, 0, 0, 0x0b, 0x83, 0x74, 1, 0xee, 0xa, 0xb7, 0x44, 0x8b, 0xc1, 0xba, 0xbc, 0x11, 0xe9, 0x51, 0xb7, 0x2a, 0x10, 0, 0, 0, 0, 0, 0, 0x2b, 0x10, 0, 0, 0, 0, 0, 0,
};

static void finds_a_record(void **state)
{
	struct replication_record record;
	assert_int_equal(repl_metadata_find(bytes_of(BLOB, sizeof BLOB), ATTID_UNICODE_PWD, &record), STATUS_OK);
	assert_true(record.known && !record.absent);
	assert_int_equal(record.version, 3);
	assert_memory_equal(record.originator, BLOB + 32, 16);
	assert_true(record.originating_usn == 0x102A); /* not the local one */
	assert_true(record.time_s == 0x32113B54ALL - 11644473600LL);
}

static void knows_that_there_is_none(void **state)
{
	static const uint8_t EMPTY[16] = { 1 };
	struct replication_record record;
	assert_int_equal(repl_metadata_find(bytes_of(BLOB, sizeof BLOB), 0x90296, &record), STATUS_OK);
	assert_true(!record.known && record.absent);
	assert_int_equal(repl_metadata_find(bytes_of(EMPTY, sizeof EMPTY), ATTID_UNICODE_PWD, &record), STATUS_OK);
	assert_true(!record.known && record.absent);
}

static void refuses_each_cut(void **state)
{
	struct replication_record record;
	for (size_t size = 0; size < sizeof BLOB; size++) {
		assert_int_equal(repl_metadata_find(bytes_of(BLOB, size), ATTID_UNICODE_PWD, &record), STATUS_LOCAL_INPUT);
		assert_false(record.known || record.absent);
	}
}

static void refuses_another_version_and_count(void **state)
{
	uint8_t blob[sizeof BLOB];
	struct replication_record record;
	static const struct { size_t at; uint8_t value; } CHANGES[] = { { 0, 2 }, { 3, 1 }, { 8, 1 }, { 8, 3 }, { 11, 0x80 } };
	for (size_t i = 0; i < sizeof CHANGES / sizeof CHANGES[0]; i++) {
		memcpy(blob, BLOB, sizeof BLOB);
		blob[CHANGES[i].at] = CHANGES[i].value;
		assert_int_equal(repl_metadata_find(bytes_of(blob, sizeof blob), ATTID_UNICODE_PWD, &record), STATUS_LOCAL_INPUT);
	}
}

static void times(void **state)
{
	int64_t seconds = 1;
	assert_true(ad_time_from_1601(0) == 0);
	assert_true(ad_time_from_1601(11644473601) == 1);
	assert_true(ad_time_from_1601(UINT64_MAX) == 0);
	assert_true(ad_time_from_filetime(133000000000000000) == 1655526400);
	assert_true(ad_time_from_filetime(0) == 0);
	assert_true(ad_time_from_filetime(-1) == 0);
	assert_true(ad_time_expiry(0) == INT64_MAX);
	assert_true(ad_time_expiry(INT64_MAX) == INT64_MAX);
	assert_true(ad_time_expiry(133000000000000000) == 1655526400);
	assert_true(ad_time_interval(-864000000000) == 86400);
	assert_true(ad_time_interval(0) == 0);
	assert_true(ad_time_interval(INT64_MIN) == 0);
	assert_true(ad_time_generalized("20261122120335.0Z", &seconds));
	assert_true(seconds == 1795349015);
	assert_true(ad_time_generalized("20261122120335Z", &seconds));
	static const char *const WRONG[] = { "", "20261122120335", "20261122120335.0", "20261122120335+0100", "2026112212033Z", "20261322120335Z", "20261100120335Z", "20261122240335Z",
		"20261122126035Z", "2026x122120335Z", "20261122120335.0Zx", "202611221203350Z" };
	for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
		assert_false(ad_time_generalized(WRONG[i], &seconds));
	}
}

static void numbers(void **state)
{
	int64_t value;
	assert_true(ad_number("-9223372036854775808", &value) && value == INT64_MIN);
	assert_true(ad_number("9223372036854775807", &value) && value == INT64_MAX);
	assert_true(ad_number("512", &value) && value == 512);
	static const char *const WRONG[] = { "", "-", " 1", "+1", "1 ", "1x", "0x10", "9223372036854775808" };
	for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
		assert_false(ad_number(WRONG[i], &value));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(finds_a_record), cmocka_unit_test(knows_that_there_is_none), cmocka_unit_test(refuses_each_cut),
		cmocka_unit_test(refuses_another_version_and_count), cmocka_unit_test(times), cmocka_unit_test(numbers) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
