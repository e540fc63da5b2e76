#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/directory/ldap_answer.h"

enum { NO_CONTROL = -2 };

/* What slapd 2.5.13 and 389 Directory Server 2.3.1 answered. */
static const struct {
	enum ad_operation operation;
	int ldap_result, error; /* of the control */
	const char *text;
	enum status status;
} ROWS[] = {
	{ AD_RESET, 0, NO_CONTROL, "", STATUS_OK },
	{ AD_RESET, 0, PPOLICY_TOO_SHORT, NULL, STATUS_OK },
	/* OpenLDAP */
	{ AD_RESET, 19, PPOLICY_TOO_SHORT, "Password fails quality checking policy", STATUS_POLICY_TOO_SHORT },
	{ AD_RESET, 19, PPOLICY_QUALITY, "Password fails quality checking policy", STATUS_POLICY_COMPLEXITY },
	{ AD_RESET, 19, NO_CONTROL, "Password fails quality checking policy", STATUS_POLICY_REJECTED },
	{ AD_RESET, 19, PPOLICY_IN_HISTORY, "Password is not being changed from existing value", STATUS_POLICY_HISTORY },
	{ AD_RESET, 19, NO_CONTROL, "Password is in history of old passwords", STATUS_POLICY_HISTORY },
	{ AD_RESET, 19, PPOLICY_TOO_YOUNG, "Password is too young to change", STATUS_POLICY_TOO_RECENT },
	{ AD_CHANGE, 19, PPOLICY_TOO_YOUNG, "Password is too young to change", STATUS_POLICY_TOO_RECENT },
	{ AD_RESET, 50, NO_CONTROL, NULL, STATUS_DIRECTORY_DENIED },
	{ AD_UNLOCK, 50, NO_CONTROL, NULL, STATUS_DIRECTORY_DENIED },
	{ AD_UNLOCK, 53, NO_CONTROL, "shadow context; no update referral", STATUS_DIRECTORY_REFERRAL },
	{ AD_UNLOCK, 53, NO_CONTROL, "", STATUS_DIRECTORY_DENIED },
	/* 389: its control says "quality" of a length, and "not allowed" of missing access */
	{ AD_RESET, 19, PPOLICY_QUALITY, "invalid password syntax - password must be at least 10 characters long", STATUS_POLICY_TOO_SHORT },
	{ AD_RESET, 19, PPOLICY_QUALITY, "invalid password syntax - password must contain at least 3 character categories", STATUS_POLICY_COMPLEXITY },
	{ AD_RESET, 19, NO_CONTROL, "password in history", STATUS_POLICY_HISTORY },
	{ AD_RESET, 19, PPOLICY_TOO_YOUNG, "within password minimum age", STATUS_POLICY_TOO_RECENT },
	{ AD_RESET, 19, PPOLICY_IN_HISTORY, "Failed to update password", STATUS_POLICY_HISTORY },
	{ AD_RESET, 19, NO_CONTROL, "Failed to update password", STATUS_POLICY_REJECTED },
	{ AD_RESET, 50, PPOLICY_MOD_NOT_ALLOWED, "Insufficient 'write' privilege to the 'userPassword' attribute", STATUS_DIRECTORY_DENIED },
	{ AD_RESET, 53, PPOLICY_MOD_NOT_ALLOWED, "user is not allowed to change password", STATUS_USER_CANNOT_CHANGE },
	{ AD_CHANGE, 49, NO_CONTROL, "Invalid oldPasswd value.", STATUS_CREDENTIAL_WRONG },
	{ AD_CHANGE, 50, PPOLICY_MOD_NOT_ALLOWED, "User alteration of password is not allowed", STATUS_USER_CANNOT_CHANGE },
	{ AD_RESET, 50, PPOLICY_MOD_NOT_ALLOWED, "User alteration of password is not allowed", STATUS_DIRECTORY_DENIED },
	{ AD_CHANGE, 53, PPOLICY_MOD_NOT_ALLOWED, "User is not allowed to change password\n", STATUS_USER_CANNOT_CHANGE },
	{ AD_CHANGE, 53, NO_CONTROL, "unwilling to verify old password", STATUS_DIRECTORY_DENIED },
	{ AD_CHANGE, 50, PPOLICY_MOD_NOT_ALLOWED, "Insufficient access rights\n", STATUS_DIRECTORY_DENIED },
	/* the agent's own bind */
	{ AD_BIND, 49, NO_CONTROL, NULL, STATUS_DIRECTORY_CREDENTIAL },
	{ AD_BIND, 49, PPOLICY_LOCKED, NULL, STATUS_DIRECTORY_CREDENTIAL },
	{ AD_BIND, 19, PPOLICY_LOCKED, "Exceed password retry limit. Please try later.", STATUS_DIRECTORY_CREDENTIAL },
	/* a user's */
	{ AD_VERIFY, 0, NO_CONTROL, NULL, STATUS_VERIFIED },
	{ AD_VERIFY, 0, PPOLICY_CHANGE_AFTER_RESET, NULL, STATUS_CREDENTIAL_MUST_CHANGE },
	{ AD_VERIFY, 49, NO_CONTROL, NULL, STATUS_CREDENTIAL_WRONG },
	{ AD_VERIFY, 49, PPOLICY_LOCKED, NULL, STATUS_USER_LOCKED },
	{ AD_VERIFY, 19, NO_CONTROL, "Exceed password retry limit. Please try later.", STATUS_USER_LOCKED },
	{ AD_VERIFY, 49, PPOLICY_EXPIRED, NULL, STATUS_CREDENTIAL_EXPIRED },
	{ AD_VERIFY, 53, NO_CONTROL, "Account inactivated. Contact system administrator.", STATUS_USER_DISABLED },
	{ AD_VERIFY, 51, NO_CONTROL, NULL, STATUS_DIRECTORY_BUSY },
	{ AD_READ, 4, NO_CONTROL, NULL, STATUS_USER_AMBIGUOUS },
	{ AD_READ, 80, NO_CONTROL, NULL, STATUS_DIRECTORY_PROTOCOL },
};

static void answers(void **state)
{
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct ppolicy_answer ppolicy = { ROWS[i].error, -1, -1 };
		enum status status = ldap_answer_status(ROWS[i].operation, ROWS[i].ldap_result, ROWS[i].text, ROWS[i].error == NO_CONTROL ? NULL : &ppolicy);
		if (status != ROWS[i].status) {
			fail_msg("row %zu: %s, not %s", i, status_code(status), status_code(ROWS[i].status));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(answers) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
