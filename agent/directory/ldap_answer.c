#include "agent/directory/ldap_answer.h"

#include <string.h>

enum { READ = 1 << AD_READ, BIND = 1 << AD_BIND, RESET = 1 << AD_RESET, UNLOCK = 1 << AD_UNLOCK, CHANGE = 1 << AD_CHANGE, SET = RESET | CHANGE };
enum { WRITE = SET | UNLOCK, REQUEST = READ | WRITE, ANY_OPERATION = REQUEST | BIND };

/* As the servers say them (OpenLDAP 2.5, 389 Directory Server 2.3). 389's control calls everything but history and age "quality". */
static const struct {
	unsigned operations;
	int ldap_result;
	const char *words;
	enum status status;
} TEXTS[] = {
	{ SET, LDAP_CONSTRAINT_VIOLATION, "password must be at least", STATUS_POLICY_TOO_SHORT },
	{ SET, LDAP_CONSTRAINT_VIOLATION, "password in history", STATUS_POLICY_HISTORY },
	{ SET, LDAP_CONSTRAINT_VIOLATION, "within password minimum age", STATUS_POLICY_TOO_RECENT },
	{ SET, LDAP_CONSTRAINT_VIOLATION, "invalid password syntax", STATUS_POLICY_COMPLEXITY },
	{ SET, LDAP_CONSTRAINT_VIOLATION, "Password is not being changed from existing value", STATUS_POLICY_HISTORY },
	{ SET, LDAP_CONSTRAINT_VIOLATION, "Password is in history of old passwords", STATUS_POLICY_HISTORY },
	{ SET, LDAP_CONSTRAINT_VIOLATION, "Password is too young to change", STATUS_POLICY_TOO_RECENT },
	/* pwdAllowUserChange: of the user's own write. */
	{ CHANGE, LDAP_INSUFFICIENT_ACCESS, "User alteration of password is not allowed", STATUS_USER_CANNOT_CHANGE },
	/* Changed since the bind. */
	{ CHANGE, LDAP_INVALID_CREDENTIALS, "Invalid oldPasswd value", STATUS_CREDENTIAL_WRONG },
	/* A replica that knows of no master to refer to. */
	{ WRITE, LDAP_UNWILLING_TO_PERFORM, "shadow context", STATUS_DIRECTORY_REFERRAL },
};

static const struct {
	unsigned operations;
	int error;
	enum status status;
} ERRORS[] = {
	{ SET, PPOLICY_TOO_SHORT, STATUS_POLICY_TOO_SHORT },
	{ SET, PPOLICY_QUALITY, STATUS_POLICY_COMPLEXITY },
	{ SET, PPOLICY_TOO_YOUNG, STATUS_POLICY_TOO_RECENT },
	{ SET, PPOLICY_IN_HISTORY, STATUS_POLICY_HISTORY },
	{ SET, PPOLICY_TOO_LONG, STATUS_POLICY_REJECTED },
	{ SET, PPOLICY_MOD_NOT_ALLOWED, STATUS_USER_CANNOT_CHANGE },
	{ SET, PPOLICY_MUST_SUPPLY_OLD, STATUS_DIRECTORY_DENIED },
};

static const struct {
	unsigned operations;
	int ldap_result;
	enum status status;
} RESULTS[] = {
	{ ANY_OPERATION, LDAP_SUCCESS, STATUS_OK },
	{ SET, LDAP_CONSTRAINT_VIOLATION, STATUS_POLICY_REJECTED },
	{ ANY_OPERATION, LDAP_STRONG_AUTH_REQUIRED, STATUS_DIRECTORY_ENCRYPTION },
	{ ANY_OPERATION, LDAP_CONFIDENTIALITY_REQUIRED, STATUS_DIRECTORY_ENCRYPTION },
	{ REQUEST, LDAP_INSUFFICIENT_ACCESS, STATUS_DIRECTORY_DENIED },
	{ WRITE, LDAP_UNWILLING_TO_PERFORM, STATUS_DIRECTORY_DENIED },
	{ REQUEST, LDAP_NO_SUCH_OBJECT, STATUS_USER_NOT_FOUND },
	{ ANY_OPERATION, LDAP_REFERRAL, STATUS_DIRECTORY_REFERRAL },
	{ WRITE, LDAP_UNAVAILABLE_CRITICAL_EXTENSION, STATUS_DIRECTORY_NO_POLICY_CONTROL },
	{ ANY_OPERATION, LDAP_BUSY, STATUS_DIRECTORY_BUSY },
	{ ANY_OPERATION, LDAP_UNAVAILABLE, STATUS_DIRECTORY_BUSY },
	{ ANY_OPERATION, LDAP_TIMELIMIT_EXCEEDED, STATUS_DIRECTORY_BUSY },
	{ ANY_OPERATION, LDAP_ADMINLIMIT_EXCEEDED, STATUS_DIRECTORY_BUSY },
	{ READ, LDAP_SIZELIMIT_EXCEEDED, STATUS_USER_AMBIGUOUS },
	{ BIND, LDAP_INVALID_CREDENTIALS, STATUS_DIRECTORY_CREDENTIAL },
	{ BIND, LDAP_INAPPROPRIATE_AUTH, STATUS_DIRECTORY_CREDENTIAL },
	{ BIND, LDAP_NO_SUCH_OBJECT, STATUS_DIRECTORY_CREDENTIAL },
	/* 389: locked, and inactivated by nsAccountLock. */
	{ BIND, LDAP_CONSTRAINT_VIOLATION, STATUS_DIRECTORY_CREDENTIAL },
	{ BIND, LDAP_UNWILLING_TO_PERFORM, STATUS_DIRECTORY_CREDENTIAL },
};

#define COUNT(rows) (sizeof rows / sizeof rows[0])

static enum status by_text(unsigned operation, int ldap_result, const char *diagnostic)
{
	for (size_t i = 0; diagnostic != NULL && i < COUNT(TEXTS); i++) {
		if ((TEXTS[i].operations & operation) != 0 && TEXTS[i].ldap_result == ldap_result && strstr(diagnostic, TEXTS[i].words) != NULL) {
			return TEXTS[i].status;
		}
	}
	return STATUS_OK;
}

static enum status by_error(unsigned operation, const struct ppolicy_answer *ppolicy)
{
	for (size_t i = 0; ppolicy != NULL && i < COUNT(ERRORS); i++) {
		if ((ERRORS[i].operations & operation) != 0 && ERRORS[i].error == ppolicy->error) {
			return ERRORS[i].status;
		}
	}
	return STATUS_OK;
}

static enum status verify_status(int ldap_result, const char *diagnostic, const struct ppolicy_answer *ppolicy)
{
	int error = ppolicy != NULL ? ppolicy->error : -1;
	bool says_locked = diagnostic != NULL && strstr(diagnostic, "retry limit") != NULL, says_expired = diagnostic != NULL && strstr(diagnostic, "password expired") != NULL;
	if (ldap_result == LDAP_SUCCESS) {
		return error == PPOLICY_CHANGE_AFTER_RESET ? STATUS_CREDENTIAL_MUST_CHANGE : error == PPOLICY_EXPIRED ? STATUS_CREDENTIAL_EXPIRED : STATUS_VERIFIED;
	}
	if (error == PPOLICY_LOCKED || (ldap_result == LDAP_CONSTRAINT_VIOLATION && says_locked)) {
		return STATUS_USER_LOCKED;
	}
	if (error == PPOLICY_EXPIRED || (ldap_result == LDAP_INVALID_CREDENTIALS && says_expired)) {
		return STATUS_CREDENTIAL_EXPIRED;
	}
	if (ldap_result == LDAP_UNWILLING_TO_PERFORM && diagnostic != NULL && strstr(diagnostic, "inactivated") != NULL) {
		return STATUS_USER_DISABLED;
	}
	if (ldap_result == LDAP_INVALID_CREDENTIALS || ldap_result == LDAP_INAPPROPRIATE_AUTH || ldap_result == LDAP_NO_SUCH_OBJECT) {
		return STATUS_CREDENTIAL_WRONG;
	}
	return ldap_answer_status(AD_READ, ldap_result, diagnostic, NULL);
}

enum status ldap_answer_status(enum ad_operation operation, int ldap_result, const char *diagnostic, const struct ppolicy_answer *ppolicy)
{
	if (operation == AD_VERIFY) {
		return verify_status(ldap_result, diagnostic, ppolicy);
	}
	unsigned bit = 1U << operation;
	enum status status = ldap_result == LDAP_SUCCESS ? STATUS_OK : by_text(bit, ldap_result, diagnostic);
	/* 389 also says "not allowed" by the control where its access rules forbid it. */
	if (status == STATUS_OK && ldap_result != LDAP_SUCCESS && ldap_result != LDAP_INSUFFICIENT_ACCESS) {
		status = by_error(bit, ppolicy);
	}
	for (size_t i = 0; status == STATUS_OK && i < COUNT(RESULTS); i++) {
		if ((RESULTS[i].operations & bit) != 0 && RESULTS[i].ldap_result == ldap_result) {
			return RESULTS[i].status;
		}
	}
	return status != STATUS_OK ? status : STATUS_DIRECTORY_PROTOCOL;
}
