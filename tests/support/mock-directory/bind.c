#include "server.h"

#include <string.h>

#include "password.h"

bool account_verify(const struct account *account, struct value password)
{
	struct digest digest;
	password_digest(password, &digest);
	return digest_equal(&account->password, &digest);
}

void account_bad_password(struct forest *forest, struct object *object)
{
	struct account *account = object->account;
	const struct policy *policy = forest_policy(forest, object);
	int64_t now = forest_now(forest);
	bool lock_is_over = account->lockout_time && !account_locked(account, policy, now);
	if (lock_is_over || now > account->bad_password_time + policy->lockout_window)
		account->bad_password_count = 0;
	account->bad_password_count++;
	account->bad_password_time = now;
	/* The built-in Administrator is never locked out by default. */
	if (policy->lockout_threshold && account->bad_password_count >= policy->lockout_threshold && object->rid != 500) {
		account->lockout_time = now;
		replication_write(forest, object, &account->lockout_record, ++forest->usn);
	}
}

static void good_password(struct forest *forest, struct object *object)
{
	struct account *account = object->account;
	account->bad_password_count = 0;
	if (account->lockout_time) {
		account->lockout_time = 0;
		replication_write(forest, object, &account->lockout_record, ++forest->usn);
	}
}

/* The sub-code of Windows' refusal; 0: welcome. All but 52e and 775 need the right password. */
static unsigned judge(struct forest *forest, struct object *object, struct value password)
{
	struct account *account = object->account;
	const struct policy *policy = forest_policy(forest, object);
	int64_t now = forest_now(forest);
	if (account_locked(account, policy, now))
		return 0x775;
	if (!account_verify(account, password)) {
		account_bad_password(forest, object);
		return 0x52e;
	}
	if (account->control & UAC_DISABLED)
		return 0x533;
	if (account->expires && now > account->expires)
		return 0x701;
	if (account->logon_hours_closed)
		return 0x530;
	if (account->workstation_bound)
		return 0x531;
	if (account_expired_password(account, policy, now))
		return account->password_last_set ? 0x532 : 0x773;
	good_password(forest, object);
	return 0;
}

void bind_perform(struct operation *operation)
{
	struct server *server = operation->server;
	const struct request *request = operation->request;
	struct answer answer = { 0 };
	bool hints;
	*operation->bound = NULL;
	if (!controls_check(operation, &answer, &hints)) {
	} else if (request->version != 3) {
		answer_set(&answer, LDAP_PROTOCOL_ERROR, "00000057: LdapErr: DSID-0C090423, comment: Invalid protocol version, data 0, v4563");
	} else if (request->method != LDAP_AUTH_SIMPLE) {
		answer_set(&answer, LDAP_AUTH_METHOD_NOT_SUPPORTED, "00002027: LdapErr: DSID-0C0905F4, comment: Unknown authentication method, data 0, v4563");
	} else if (request->password.size && server->require_signing && !operation->encrypted) {
		answer_set(&answer, LDAP_STRONG_AUTH_REQUIRED, "00002028: LdapErr: DSID-0C090256, comment: The server requires binds to turn on integrity checking if "
			"SSL\\TLS are not already active on the connection, data 0, v4563");
	} else if (request->password.size) {
		struct object *object = forest_by_logon(server->forest, &server->arena, request->name);
		unsigned code = object && object->account ? judge(server->forest, object, request->password) : server->forest->unknown_user;
		operation->target = object;
		if (!code)
			*operation->bound = object;
		else
			answer_set(&answer, LDAP_INVALID_CREDENTIALS, "80090308: LdapErr: DSID-0C09042A, comment: AcceptSecurityContext error, data %x, v4563", code);
	}
	/* A name with an empty password is an anonymous bind that succeeds (RFC 4513 5.1.2), as on Windows. */
	operation_answer(operation, &answer);
}
