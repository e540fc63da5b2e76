/* Each text that a domain controller was seen or documented to answer, and what it means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "agent/directory/ad_answer.h"
#include "base/bytes.h"

struct row {
	enum ad_operation operation;
	int result;
	const char *text;
	enum status status;
	uint32_t win32;
};

static const struct row ROWS[] = {
	{ AD_RESET, 0, NULL, STATUS_OK, 0 },
	{ AD_RESET, 0, "00000000: Success", STATUS_OK, 0 },
	/* policy: Windows, Samba 4.25, Samba 4.17 and 4.22 */
	{ AD_RESET, 53, "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0\n", STATUS_POLICY_REJECTED, 0x52D },
	{ AD_RESET, 53, "0000052D: Unwilling to perform - check_password_restrictions: password is too young to change!", STATUS_POLICY_REJECTED, 0x52D },
	{ AD_RESET, 53, "0000052D: Unwilling to perform - check_password_restrictions: the password was already used (in history)!", STATUS_POLICY_REJECTED, 0x52D },
	{ AD_RESET, 19, "0000052D: Constraint violation - check_password_restrictions: the password is too short.", STATUS_POLICY_REJECTED, 0x52D },
	{ AD_RESET, 19, "0000052D: AtrErr: DSID-03191083, #1:\n\t0: 0000052D: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)", STATUS_POLICY_REJECTED, 0x52D },
	/* a change: a wrong old password, the policy, locked since it was looked at */
	{ AD_CHANGE, 19, "00000056: AtrErr: DSID-03191083, #1:\n\t0: 00000056: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)", STATUS_CREDENTIAL_WRONG, 0x56 },
	{ AD_CHANGE, 19, "00000056: Constraint violation - check_password_restrictions: The old password specified doesn't match!", STATUS_CREDENTIAL_WRONG, 0x56 },
	{ AD_RESET, 19, "00000056: AtrErr: DSID-03191083, #1: x", STATUS_DIRECTORY_PROTOCOL, 0x56 },
	{ AD_CHANGE, 19, "0000052D: AtrErr: DSID-03191083, #1:\n\t0: 0000052D: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)", STATUS_POLICY_REJECTED, 0x52D },
	{ AD_CHANGE, 19, "0000052D: Constraint violation - check_password_restrictions: the password does not meet the complexity criteria!", STATUS_POLICY_REJECTED, 0x52D },
	{ AD_CHANGE, 19, "00000775: AtrErr: DSID-03191083, #1:\n\t0: 00000775: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)", STATUS_USER_LOCKED, 0x775 },
	{ AD_CHANGE, 53, "00000775: Password change not permitted, account locked out!", STATUS_USER_LOCKED, 0x775 },
	{ AD_CHANGE, 50, "00000005: SecErr: DSID-031A1190, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0", STATUS_DIRECTORY_DENIED, 5 },
	{ AD_CHANGE, 53, "0000001F: SvcErr: DSID-031A126C, problem 5003 (WILL_NOT_PERFORM), data 0", STATUS_DIRECTORY_ENCRYPTION, 0x1F },
	{ AD_CHANGE, 0, NULL, STATUS_OK, 0 },
	{ AD_CHANGE, 19, "00000057: AtrErr", STATUS_DIRECTORY_PROTOCOL, 0x57 },
	/* rights */
	{ AD_RESET, 50, "00000005: SecErr: DSID-031A1190, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0", STATUS_DIRECTORY_DENIED, 5 },
	{ AD_RESET, 50, "error in module acl: insufficient access rights during LDB_MODIFY (50)", STATUS_DIRECTORY_DENIED, 0 },
	{ AD_UNLOCK, 50, "00002098: SecErr: DSID-03150F94, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0", STATUS_DIRECTORY_DENIED, 0x2098 },
	{ AD_UNLOCK, 50, "00002098: Object CN=outsider,DC=x has no write property access\n", STATUS_DIRECTORY_DENIED, 0x2098 },
	/* encoding and encryption: never policy */
	{ AD_RESET, 53, "0000001F: SvcErr: DSID-031A126C, problem 5003 (WILL_NOT_PERFORM), data 0\nPassword modification over LDAP must be over an encrypted connection", STATUS_DIRECTORY_ENCRYPTION, 0x1F },
	{ AD_RESET, 53, "00000057: SvcErr: DSID-031A126C, problem 5003 (WILL_NOT_PERFORM), data 0", STATUS_DIRECTORY_ENCRYPTION, 0x57 },
	{ AD_RESET, 53, "00002035: setup_io: it's not allowed to set the NT hash password directly'", STATUS_DIRECTORY_ENCRYPTION, 0x2035 },
	/* gone */
	{ AD_RESET, 32, "0000208D: NameErr: DSID-0310028B, problem 2001 (NO_OBJECT), data 0, best match of:\n\t'DC=x'\n", STATUS_USER_NOT_FOUND, 0x208D },
	{ AD_READ, 32, "00002030: No such Base DN: CN=nobody,DC=x", STATUS_USER_NOT_FOUND, 0x2030 },
	{ AD_READ, 32, "Base-DN '<GUID=00>' not found", STATUS_USER_NOT_FOUND, 0 },
	/* not bound */
	{ AD_RESET, 1, "000004DC: LdapErr: DSID-0C090A69, comment: In order to perform this operation a successful bind must be completed on the connection., data 0, v3839", STATUS_DIRECTORY_UNAVAILABLE, 0x4DC },
	{ AD_READ, 1, "00002020: Operation unavailable without authentication", STATUS_DIRECTORY_UNAVAILABLE, 0x2020 },
	/* read-only or wrong controller */
	{ AD_RESET, 10, "0000202B: RefErr: DSID-03100835, data 0, 1 access points", STATUS_DIRECTORY_REFERRAL, 0x202B },
	{ AD_UNLOCK, 10, "", STATUS_DIRECTORY_REFERRAL, 0 },
	/* busy */
	{ AD_RESET, 51, "00002024: SvcErr: busy", STATUS_DIRECTORY_BUSY, 0x2024 },
	{ AD_READ, 52, NULL, STATUS_DIRECTORY_BUSY, 0 },
	{ AD_READ, 3, NULL, STATUS_DIRECTORY_BUSY, 0 },
	{ AD_READ, 11, NULL, STATUS_DIRECTORY_BUSY, 0 },
	/* the policy-hints control */
	{ AD_RESET, 12, NULL, STATUS_DIRECTORY_NO_POLICY_CONTROL, 0 },
	{ AD_READ, 12, NULL, STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_READ, 4, NULL, STATUS_USER_AMBIGUOUS, 0 },
	/* binds */
	{ AD_BIND, 8, "00002028: LdapErr: DSID-0C090256, comment: The server requires binds to turn on integrity checking if SSL\\TLS are not already active on the connection, data 0, v3839", STATUS_DIRECTORY_ENCRYPTION, 0x2028 },
	{ AD_BIND, 8, "BindSimple: Transport encryption required.", STATUS_DIRECTORY_ENCRYPTION, 0 },
	{ AD_BIND, 49, "80090346: LdapErr: DSID-0C090711, comment: AcceptSecurityContext error, data 35b, v1db1", STATUS_DIRECTORY_CREDENTIAL, 0x35B },
	{ AD_BIND, 49, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1", STATUS_DIRECTORY_CREDENTIAL, 0x52E },
	{ AD_BIND, 49, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 775, v1db1", STATUS_DIRECTORY_CREDENTIAL, 0x775 },
	{ AD_BIND, 49, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 51f, v1db1", STATUS_DIRECTORY_UNAVAILABLE, 0x51F },
	{ AD_BIND, 49, NULL, STATUS_DIRECTORY_CREDENTIAL, 0 },
	{ AD_BIND, 51, NULL, STATUS_DIRECTORY_BUSY, 0 },
	/* binds as a user */
	{ AD_VERIFY, 0, NULL, STATUS_VERIFIED, 0 },
#define BIND_TEXT(data) "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data " data ", v1db1"
	{ AD_VERIFY, 49, BIND_TEXT("525"), STATUS_CREDENTIAL_WRONG, 0x525 },
	{ AD_VERIFY, 49, BIND_TEXT("52e"), STATUS_CREDENTIAL_WRONG, 0x52E },
	{ AD_VERIFY, 49, BIND_TEXT("530"), STATUS_USER_LOGON_HOURS, 0x530 },
	{ AD_VERIFY, 49, BIND_TEXT("531"), STATUS_USER_LOGON_WORKSTATION, 0x531 },
	{ AD_VERIFY, 49, BIND_TEXT("532"), STATUS_CREDENTIAL_EXPIRED, 0x532 },
	{ AD_VERIFY, 49, BIND_TEXT("533"), STATUS_USER_DISABLED, 0x533 },
	{ AD_VERIFY, 49, BIND_TEXT("701"), STATUS_USER_EXPIRED, 0x701 },
	{ AD_VERIFY, 49, BIND_TEXT("773"), STATUS_CREDENTIAL_MUST_CHANGE, 0x773 },
	{ AD_VERIFY, 49, BIND_TEXT("775"), STATUS_USER_LOCKED, 0x775 },
	{ AD_VERIFY, 49, BIND_TEXT("51f"), STATUS_DIRECTORY_UNAVAILABLE, 0x51F },
	{ AD_VERIFY, 49, BIND_TEXT("57"), STATUS_DIRECTORY_CREDENTIAL, 0x57 },
	{ AD_VERIFY, 49, NULL, STATUS_DIRECTORY_CREDENTIAL, 0 },
	{ AD_VERIFY, 8, "BindSimple: Transport encryption required.", STATUS_DIRECTORY_ENCRYPTION, 0 },
	{ AD_VERIFY, 51, NULL, STATUS_DIRECTORY_BUSY, 0 },
	{ AD_VERIFY, 53, NULL, STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_BIND, 0, NULL, STATUS_OK, 0 },
	{ AD_BIND, 49, BIND_TEXT("533"), STATUS_DIRECTORY_CREDENTIAL, 0x533 },
	/* known to mean nothing that we can name */
	{ AD_UNLOCK, 53, "00002077: samldb: 'lockoutTime' can't be deleted!", STATUS_DIRECTORY_PROTOCOL, 0x2077 },
	{ AD_RESET, 80, "00000057: setup_last_set_field: pwdLastSet must be 0 or -1 only!", STATUS_DIRECTORY_PROTOCOL, 0x57 },
	/* rejected twins: the code without the result, the result without the code, the right text for another operation */
	{ AD_RESET, 53, "problem 5003 (WILL_NOT_PERFORM), 0000052D: data 0", STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_RESET, 53, "0000052D SvcErr", STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_RESET, 53, "000052D: SvcErr", STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_RESET, 53, NULL, STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_RESET, 19, NULL, STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_RESET, 1, "0000052D: x", STATUS_DIRECTORY_PROTOCOL, 0x52D },
	{ AD_UNLOCK, 53, "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0", STATUS_DIRECTORY_PROTOCOL, 0x52D },
	{ AD_RESET, 53, "0000001f: lower case", STATUS_DIRECTORY_ENCRYPTION, 0x1F },
	{ AD_RESET, -1, NULL, STATUS_DIRECTORY_PROTOCOL, 0 },
	{ AD_RESET, 9999, "0000052D: x", STATUS_DIRECTORY_PROTOCOL, 0x52D },
};

static void answers(void **state)
{
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		uint32_t win32 = 1;
		enum status status = ad_answer_status(ROWS[i].operation, ROWS[i].result, ROWS[i].text, &win32);
		if (status != ROWS[i].status || win32 != ROWS[i].win32) {
			print_error("row %zu (%s): %s, %x\n", i, ROWS[i].text, status_code(status), win32);
		}
		assert_int_equal(status, ROWS[i].status);
		assert_int_equal(win32, ROWS[i].win32);
	}
}

static void bind_reasons(void **state)
{
	assert_string_equal(ad_answer_bind_reason(0x775), "the account is locked");
	assert_null(ad_answer_bind_reason(0x52D));
}

static void check_text(const char *in, size_t capacity, const char *out)
{
	char text[64];
	ad_answer_text(in, text, capacity);
	assert_string_equal(text, out);
	assert_true(utf8_valid(bytes_of_string(text)));
}

static void texts(void **state)
{
	check_text(NULL, 64, "");
	check_text("0000052D: SvcErr\n", 64, "0000052D: SvcErr");
	check_text("a\tb\x1b[31m\x7f", 64, "a b [31m");
	check_text("J\xc3\xbcrgen \xf0\x9f\x94\x91", 64, "J\xc3\xbcrgen \xf0\x9f\x94\x91");
	check_text("\xc2\x9b" "31m", 64, " 31m");         /* a C1 control */
	check_text("a\xff\xc3", 64, "a??");               /* invalid, and cut in a character */
	check_text("\xed\xa0\x80", 64, "???");            /* a surrogate */
	check_text("abc\xc3\xbc", 5, "abc");              /* no half character at the end */
	check_text("abcd", 4, "abc");
	check_text("abcd", 1, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(answers), cmocka_unit_test(bind_reasons), cmocka_unit_test(texts) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
