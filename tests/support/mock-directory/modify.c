/* Modify: everything is judged before anything is written; one transaction, one USN. */
#include <string.h>

#include "password.h"
#include "server.h"

/* What the modify will do when all of it has been accepted. */
struct staged {
	struct operation *operation;
	struct forest *forest;
	struct object *target;
	bool hints, old_given;
	struct digest old;
	bool reset, change, unlock, last_set_zero, last_set_now;
	struct digest password;
	struct value new_password;
	size_t new_units;
	struct answer answer;
};

#define SVC(win32, dsid) win32 ": SvcErr: DSID-" dsid ", problem 5003 (WILL_NOT_PERFORM), data 0\n"
#define PASSWORD_ATR(win32) win32 ": AtrErr: DSID-03191083, #1:\n\t0: " win32 ": DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)\n"

static bool refuse(struct staged *staged, int code, const char *text)
{
	answer_set(&staged->answer, code, "%s", text);
	return false;
}

static bool may(struct staged *staged, enum right right)
{
	return forest_may(staged->forest, *staged->operation->bound, staged->target, right);
}

static bool read_password(struct staged *staged, struct value octets)
{
	switch (password_unquote(&staged->operation->server->arena, octets, &staged->new_password, &staged->new_units)) {
	case UNQUOTE_ODD:
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00000057", "031A1254"));
	case UNQUOTE_NO_QUOTES:
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("0000001F", "031A120C"));
	case UNQUOTE_OK:
		break;
	}
	password_digest(staged->new_password, &staged->password);
	return true;
}

static bool stage_old_password(struct staged *staged, const struct modification *modification)
{
	if (modification->values.count != 1 || staged->old_given || staged->reset || staged->change)
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00000057", "031A1248"));
	staged->old_given = true;
	if (!read_password(staged, modification->values.items[0]))
		return false;
	staged->old = staged->password;
	return true;
}

static bool stage_new_password(struct staged *staged, const struct modification *modification)
{
	bool is_change = modification->operation == LDAP_MOD_ADD;
	if (modification->values.count != 1 || is_change != staged->old_given || staged->reset || staged->change)
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00000057", "031A1248"));
	if (!is_change && !may(staged, RIGHT_RESET_PASSWORD))
		return refuse(staged, LDAP_INSUFFICIENT_ACCESS, "00000005: SecErr: DSID-031A1190, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0\n");
	staged->reset = !is_change;
	staged->change = is_change;
	return read_password(staged, modification->values.items[0]);
}

static bool stage_password(struct staged *staged, const struct modification *modification)
{
	if (!staged->operation->encrypted)
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("0000001F", "031A126C"));
	if (!staged->target->account)
		return refuse(staged, LDAP_OBJECT_CLASS_VIOLATION, "0000207D: UpdErr: DSID-0315166D, problem 6002 (OBJ_CLASS_VIOLATION), data 589914\n");
	if (modification->operation == LDAP_MOD_DELETE)
		return stage_old_password(staged, modification);
	return stage_new_password(staged, modification);
}

static bool denied_write(struct staged *staged)
{
	return refuse(staged, LDAP_INSUFFICIENT_ACCESS, "00002098: SecErr: DSID-03150F94, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0\n");
}

static bool stage_lockout(struct staged *staged, const struct modification *modification)
{
	if (!may(staged, RIGHT_WRITE_LOCKOUT) || !staged->target->account)
		return denied_write(staged);
	if (modification->operation == LDAP_MOD_DELETE || !modification->values.count)
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00002077", "031903F1"));
	if (modification->values.count != 1 || !value_is(modification->values.items[0], "0"))
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00000057", "031A1262"));
	staged->unlock = true;
	return true;
}

static bool stage_last_set(struct staged *staged, const struct modification *modification)
{
	if (!may(staged, RIGHT_WRITE_LAST_SET) || !staged->target->account)
		return denied_write(staged);
	if (modification->operation == LDAP_MOD_DELETE || !modification->values.count)
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00002077", "031903F1"));
	bool zero = modification->values.count == 1 && value_is(modification->values.items[0], "0");
	bool now = modification->values.count == 1 && value_is(modification->values.items[0], "-1");
	if (!zero && !now)
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00000057", "031A1262"));
	staged->last_set_zero = zero;
	staged->last_set_now = now;
	return true;
}

static bool stage(struct staged *staged, const struct modification *modification)
{
	static const struct { const char *name; bool (*stage)(struct staged *, const struct modification *); } rows[] = {
		{ "unicodePwd", stage_password }, { "lockoutTime", stage_lockout }, { "pwdLastSet", stage_last_set },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (value_is(modification->attribute, rows[i].name))
			return rows[i].stage(staged, modification);
	if (!attribute_find(modification->attribute))
		return refuse(staged, LDAP_NO_SUCH_ATTRIBUTE, "00000057: LdapErr: DSID-0C090D9A, comment: Error in attribute conversion operation, data 0, v4563");
	return denied_write(staged);
}

static bool obeys_policy(const struct staged *staged, const struct policy *policy, bool history)
{
	struct operation *operation = staged->operation;
	const struct account *account = staged->target->account;
	if (!password_acceptable(staged->forest, &operation->server->arena, policy, account, staged->new_password, staged->new_units))
		return false;
	return !history || (!password_in_history(account, policy, &staged->password) && !password_too_young(account, policy, forest_now(staged->forest)));
}

static bool judge_reset(struct staged *staged)
{
	if (!obeys_policy(staged, forest_policy(staged->forest, staged->target), staged->hints))
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("0000052D", "031A12D2"));
	return true;
}

static bool judge_change(struct staged *staged)
{
	const struct account *account = staged->target->account;
	const struct policy *policy = forest_policy(staged->forest, staged->target);
	if (account_locked(account, policy, forest_now(staged->forest)))
		return refuse(staged, LDAP_CONSTRAINT_VIOLATION, PASSWORD_ATR("00000775"));
	if (!digest_equal(&account->password, &staged->old)) {
		account_bad_password(staged->forest, staged->target);
		return refuse(staged, LDAP_CONSTRAINT_VIOLATION, PASSWORD_ATR("00000056"));
	}
	if (!obeys_policy(staged, policy, true))
		return refuse(staged, LDAP_CONSTRAINT_VIOLATION, PASSWORD_ATR("0000052D"));
	return true;
}

static bool judge(struct staged *staged)
{
	const struct request *request = staged->operation->request;
	for (size_t i = 0; i < request->modification_count; i++)
		if (!stage(staged, &request->modifications[i]))
			return false;
	if (staged->old_given && !staged->change)
		return refuse(staged, LDAP_UNWILLING_TO_PERFORM, SVC("00000057", "031A1248"));
	if ((staged->reset && !judge_reset(staged)) || (staged->change && !judge_change(staged)))
		return false;
	if (!staged->forest->read_only)
		return true;
	struct forest *forest = staged->forest;
	staged->answer.referral = arena_printf(&staged->operation->server->arena, "ldap://writable.%s/%s", forest->dns_name, staged->target->dn);
	answer_set(&staged->answer, LDAP_REFERRAL, "0000202B: RefErr: DSID-0310082F, data 0, 1 access points\n\tref 1: 'writable.%s'\n", forest->dns_name);
	return false;
}

static void commit(struct staged *staged)
{
	struct account *account = staged->target->account;
	struct forest *forest = staged->forest;
	int64_t now = forest_now(forest);
	uint64_t usn = forest->usn + 1;
	bool password = staged->reset || staged->change, last_set = password;
	if (password) {
		password_store(account, &staged->password, now);
		replication_write(forest, staged->target, &account->password_record, usn);
		/* MS-SAMR 3.1.1.8.7 */
		if (staged->reset && forest->unexpire_needed && !forest_may(forest, *staged->operation->bound, forest->domain, RIGHT_UNEXPIRE))
			account->password_last_set = 0;
		staged->operation->server->statistics.password_writes++;
	}
	if (staged->last_set_zero && account->password_last_set)
		account->password_last_set = 0, last_set = true;
	/* -1 takes effect only where it stood at 0. */
	if (staged->last_set_now && !account->password_last_set)
		account->password_last_set = now, last_set = true;
	if (last_set)
		replication_write(forest, staged->target, &account->last_set_record, usn);
	/* 0 over 0 is no write; the first 0 is one. */
	if (staged->unlock && (account->lockout_time || !account->lockout_record.version)) {
		account->lockout_time = 0;
		replication_write(forest, staged->target, &account->lockout_record, usn);
	}
	if (staged->unlock)
		account->bad_password_count = 0;
	if (staged->target->usn_changed == usn)
		forest->usn = usn;
}

void modify_perform(struct operation *operation)
{
	struct server *server = operation->server;
	const struct request *request = operation->request;
	struct staged staged = { .operation = operation, .forest = server->forest };
	bool bad = false;
	if (controls_check(operation, &staged.answer, &staged.hints)) {
		if (!*operation->bound)
			answer_unbound(&staged.answer);
		else if (!(staged.target = forest_resolve(server->forest, &server->arena, request->name, &bad)))
			answer_no_object(operation, request->name, bad, &staged.answer);
		else if (judge(&staged))
			commit(&staged);
	}
	operation->target = staged.target;
	operation_answer(operation, &staged.answer);
}
