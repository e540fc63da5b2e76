#include "agent/directory/ad_answer.h"

#include <ldap.h>
#include <string.h>

#include "base/bytes.h"

enum { READ = 1 << AD_READ, BIND = 1 << AD_BIND, RESET = 1 << AD_RESET, UNLOCK = 1 << AD_UNLOCK, CHANGE = 1 << AD_CHANGE, VERIFY = 1 << AD_VERIFY };
enum { PASSWORD = RESET | CHANGE, WRITE = PASSWORD | UNLOCK, REQUEST = READ | WRITE, ANY_BIND = BIND | VERIFY, ANY_OPERATION = REQUEST | ANY_BIND };
#define ANY_CODE UINT32_MAX

struct row {
	unsigned operations;
	int ldap_result;
	uint32_t win32;
	enum status status;
};

/* The first row that fits decides; what fits none is directory.protocol. Windows' texts and Samba's differ in the result code (Samba up to 4.22 refuses a
 * password with 19 where Windows says 53) and Samba's access checks carry no code at all. */
static const struct row ROWS[] = {
	{ VERIFY, LDAP_SUCCESS, ANY_CODE, STATUS_VERIFIED },
	{ ANY_OPERATION, LDAP_SUCCESS, ANY_CODE, STATUS_OK },
	/* MS-ADTS 3.1.1.3.1.5.1: ERROR_PASSWORD_RESTRICTION. Windows refuses a change's with 19, a reset's with 53 */
	{ PASSWORD, LDAP_UNWILLING_TO_PERFORM, 0x52D, STATUS_POLICY_REJECTED },
	{ PASSWORD, LDAP_CONSTRAINT_VIOLATION, 0x52D, STATUS_POLICY_REJECTED },
	/* ERROR_INVALID_PASSWORD: the old one of a change */
	{ CHANGE, LDAP_CONSTRAINT_VIOLATION, 0x56, STATUS_CREDENTIAL_WRONG },
	/* ERROR_ACCOUNT_LOCKED_OUT: since it was looked at; nothing was compared */
	{ CHANGE, LDAP_CONSTRAINT_VIOLATION, 0x775, STATUS_USER_LOCKED },
	{ CHANGE, LDAP_UNWILLING_TO_PERFORM, 0x775, STATUS_USER_LOCKED },
	/* ERROR_GEN_FAILURE, ERROR_INVALID_PARAMETER and Samba's "not allowed to set the NT hash": encoding or unencrypted connection, never policy */
	{ PASSWORD, LDAP_UNWILLING_TO_PERFORM, 0x1F, STATUS_DIRECTORY_ENCRYPTION },
	{ PASSWORD, LDAP_UNWILLING_TO_PERFORM, 0x57, STATUS_DIRECTORY_ENCRYPTION },
	{ PASSWORD, LDAP_UNWILLING_TO_PERFORM, 0x2035, STATUS_DIRECTORY_ENCRYPTION },
	{ ANY_OPERATION, LDAP_STRONG_AUTH_REQUIRED, ANY_CODE, STATUS_DIRECTORY_ENCRYPTION },
	{ ANY_OPERATION, LDAP_CONFIDENTIALITY_REQUIRED, ANY_CODE, STATUS_DIRECTORY_ENCRYPTION },
	{ REQUEST, LDAP_INSUFFICIENT_ACCESS, ANY_CODE, STATUS_DIRECTORY_DENIED },
	{ REQUEST, LDAP_NO_SUCH_OBJECT, ANY_CODE, STATUS_USER_NOT_FOUND },
	{ ANY_OPERATION, LDAP_REFERRAL, ANY_CODE, STATUS_DIRECTORY_REFERRAL },
	/* the only critical control that we send with a write */
	{ WRITE, LDAP_UNAVAILABLE_CRITICAL_EXTENSION, ANY_CODE, STATUS_DIRECTORY_NO_POLICY_CONTROL },
	{ ANY_OPERATION, LDAP_BUSY, ANY_CODE, STATUS_DIRECTORY_BUSY },
	{ ANY_OPERATION, LDAP_UNAVAILABLE, ANY_CODE, STATUS_DIRECTORY_BUSY },
	{ ANY_OPERATION, LDAP_TIMELIMIT_EXCEEDED, ANY_CODE, STATUS_DIRECTORY_BUSY },
	{ ANY_OPERATION, LDAP_ADMINLIMIT_EXCEEDED, ANY_CODE, STATUS_DIRECTORY_BUSY },
	/* the connection is not, or no longer, bound */
	{ REQUEST, LDAP_OPERATIONS_ERROR, 0x4DC, STATUS_DIRECTORY_UNAVAILABLE },
	{ REQUEST, LDAP_OPERATIONS_ERROR, 0x2020, STATUS_DIRECTORY_UNAVAILABLE },
	{ READ, LDAP_SIZELIMIT_EXCEEDED, ANY_CODE, STATUS_USER_AMBIGUOUS },
	/* ERROR_NO_LOGON_SERVERS: this server cannot judge, another one can */
	{ ANY_BIND, LDAP_INVALID_CREDENTIALS, 0x51F, STATUS_DIRECTORY_UNAVAILABLE },
	/* AcceptSecurityContext's sub-codes. ERROR_NO_SUCH_USER, ERROR_LOGON_FAILURE; those behind them come only with the right password, but for the lockout */
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x525, STATUS_CREDENTIAL_WRONG },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x52E, STATUS_CREDENTIAL_WRONG },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x530, STATUS_USER_LOGON_HOURS },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x531, STATUS_USER_LOGON_WORKSTATION },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x532, STATUS_CREDENTIAL_EXPIRED },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x533, STATUS_USER_DISABLED },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x701, STATUS_USER_EXPIRED },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x773, STATUS_CREDENTIAL_MUST_CHANGE },
	{ VERIFY, LDAP_INVALID_CREDENTIALS, 0x775, STATUS_USER_LOCKED },
	{ ANY_BIND, LDAP_INVALID_CREDENTIALS, ANY_CODE, STATUS_DIRECTORY_CREDENTIAL },
	{ ANY_BIND, LDAP_INAPPROPRIATE_AUTH, ANY_CODE, STATUS_DIRECTORY_CREDENTIAL },
	{ ANY_BIND, LDAP_NO_SUCH_OBJECT, ANY_CODE, STATUS_DIRECTORY_CREDENTIAL },
};

static const struct {
	uint32_t win32;
	const char *reason;
} BIND_REASONS[] = {
	{ 0x51F, "it reaches no other controller that could check the password, as a read-only one must" },
	{ 0x525, "there is no such account" },
	{ 0x52E, "the password or the name is wrong" },
	{ 0x530, "it may not log on at this hour" },
	{ 0x531, "it may not log on from here" },
	{ 0x532, "its password has expired" },
	{ 0x533, "the account is disabled" },
	{ 0x701, "the account has expired" },
	{ 0x773, "its password must be changed first" },
	{ 0x775, "the account is locked" },
	{ 0x57, "the name is malformed" },
};

/* Up to eight hexadecimal digits; the number of digits read is returned. */
static size_t read_hex(const char *text, uint32_t *ret_value)
{
	size_t digits = 0;
	uint32_t value = 0;
	for (; digits < 8; digits++) {
		char c = text[digits];
		unsigned digit;
		if (c >= '0' && c <= '9') {
			digit = c - '0';
		} else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
			digit = (c | 0x20) - 'a' + 10;
		} else {
			break;
		}
		value = value << 4 | digit;
	}
	*ret_value = value;
	return digits;
}

/* 0: there is none. */
static uint32_t read_win32(enum ad_operation operation, const char *diagnostic)
{
	uint32_t code, data;
	if (diagnostic == NULL || read_hex(diagnostic, &code) != 8 || diagnostic[8] != ':') {
		return 0;
	}
	if ((operation == AD_BIND || operation == AD_VERIFY) && (code == 0x80090308 || code == 0x80090346)) {
		const char *at = strstr(diagnostic, "data ");
		return at != NULL && read_hex(at + 5, &data) > 0 ? data : code;
	}
	return code;
}

enum status ad_answer_status(enum ad_operation operation, int ldap_result, const char *diagnostic, uint32_t *ret_win32)
{
	uint32_t win32 = read_win32(operation, diagnostic);
	if (ret_win32 != NULL) {
		*ret_win32 = win32;
	}
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		const struct row *row = &ROWS[i];
		if ((row->operations & 1U << operation) != 0 && row->ldap_result == ldap_result && (row->win32 == ANY_CODE || row->win32 == win32)) {
			return row->status;
		}
	}
	return STATUS_DIRECTORY_PROTOCOL;
}

/* The length of the UTF-8 character at text, 0 where it is none. */
static size_t character_size(const char *text)
{
	for (size_t size = 1; size <= 4; size++) {
		if (size > 1 && ((uint8_t)text[size - 1] & 0xC0) != 0x80) {
			return 0;
		}
		if (utf8_valid(bytes_of(text, size))) {
			return size;
		}
	}
	return 0;
}

void ad_answer_text(const char *diagnostic, char *out, size_t capacity)
{
	size_t used = 0;
	const char *at = diagnostic != NULL ? diagnostic : "";
	while (*at != 0) {
		size_t size = character_size(at);
		if (used + (size > 0 ? size : 1) >= capacity) {
			break;
		}
		if (size == 0) {
			out[used++] = '?';
			at++;
		} else if (size == 1) {
			out[used++] = (uint8_t)*at < 0x20 || *at == 0x7F ? ' ' : *at;
			at++;
		} else if (size == 2 && (uint8_t)at[0] == 0xC2 && (uint8_t)at[1] < 0xA0) { /* C1 controls */
			out[used++] = ' ';
			at += 2;
		} else {
			memcpy(out + used, at, size);
			used += size;
			at += size;
		}
	}
	while (used > 0 && out[used - 1] == ' ') {
		used--;
	}
	out[used] = 0;
}

const char *ad_answer_bind_reason(uint32_t win32)
{
	for (size_t i = 0; i < sizeof BIND_REASONS / sizeof BIND_REASONS[0]; i++) {
		if (BIND_REASONS[i].win32 == win32) {
			return BIND_REASONS[i].reason;
		}
	}
	return NULL;
}
