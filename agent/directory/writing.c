/* The calls that write, and that try a password: on the agent's connection that the user was read from, or on one of the user's own. */
#include "agent/directory/call.h"

void call_note_stage(struct directory_call *call, enum verification_stage stage, bool answered)
{
	bool write = call->kind == CALL_WRITE;
	call->answer.sent = write ? stage == VERIFICATION_WRITTEN : stage >= VERIFICATION_TRIED;
	call->answer.answered = call->answer.sent && answered;
	call->answer.tried = stage >= VERIFICATION_TRIED;
}

static bool leaves_open(const struct directory_call *call, const struct reply *reply)
{
	const struct flavor *flavor = call->directory->flavor;
	return reply->status != STATUS_OK || (flavor->leaves_open != NULL && flavor->leaves_open(reply->ldap_result));
}

/* The password is set: whatever became of what was to follow it, that stays true. */
static void on_followed(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	call->operations[OPERATION_WRITE] = NULL;
	call->answer.incomplete = reply->status != STATUS_OK || call_judge(call, AD_UNLOCK, reply) != STATUS_OK;
	call_finish(call, STATUS_OK);
}

static void follow(struct directory_call *call)
{
	struct change *after = call->after;
	call->after = NULL;
	if (operation_change(call->connection, call->name, after, call_attempt_ms(call), on_followed, call, &call->operations[OPERATION_WRITE]) != STATUS_OK) {
		call->answer.incomplete = true;
		call_finish(call, STATUS_OK);
	}
}

static void on_written(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	call->operations[OPERATION_WRITE] = NULL;
	call->answer.sent = reply->sent;
	call->answer.answered = !leaves_open(call, reply);
	enum status status = reply->status == STATUS_OK ? call_judge(call, call->operation, reply) : reply->status;
	if (status == STATUS_OK && call->after != NULL) {
		follow(call);
	} else {
		call_finish(call, status);
	}
}

static void on_verified(enum verification_stage stage, const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	bool answered = reply->status == STATUS_OK;
	call->verification = NULL;
	call_note_stage(call, stage, stage < VERIFICATION_ACCEPTED ? answered : !leaves_open(call, reply));
	call_finish(call, !answered ? reply->status : call_judge(call, stage < VERIFICATION_ACCEPTED ? AD_VERIFY : AD_CHANGE, reply));
}

enum status directory_write(struct located *located, const struct directory_change *wanted, int64_t timeout_ms, write_done done, void *arg, struct directory_call **ret_call)
{
	struct connection *connection = located->connection;
	/* A change is subject to the whole policy by itself. */
	bool is_change = wanted->set_password && wanted->old_password.size > 0, hints = wanted->set_password && wanted->enforce_policy && !is_change;
	const char *control = hints ? connection->root.policy_control : NULL;
	struct directory_call *call = NULL;
	struct change *change = NULL;
	struct view view = connection_view(connection);
	if (!wanted->set_password && !wanted->must_change && !wanted->clear_lockout) {
		return STATUS_LOCAL_INPUT;
	}
	enum status status = call_on(located, CALL_WRITE, timeout_ms, arg, &call);
	if (status != STATUS_OK) {
		return status;
	}
	call->done.write = done;
	call->operation = is_change ? AD_CHANGE : wanted->set_password ? AD_RESET : AD_UNLOCK;
	if (hints && control == NULL && connection->setup.settings->policy_hints == POLICY_HINTS_REQUIRE) {
		status = STATUS_DIRECTORY_NO_POLICY_CONTROL;
	}
	if (status == STATUS_OK) {
		status = call->directory->flavor->change_new(&view, &located->user.account, wanted, control, &change, &call->after);
	}
	if (status == STATUS_OK) {
		change->still_wanted = wanted->still_wanted;
		change->arg = arg;
	}
	if (status == STATUS_OK && is_change && call->directory->flavor->changes_as_user) {
		status = verification_start(call->directory, connection, located->user.account.dn, wanted->old_password, change, on_verified, call, &call->verification);
	} else if (status == STATUS_OK) {
		status = operation_change(connection, call->name, change, timeout_ms, on_written, call, &call->operations[OPERATION_WRITE]);
	}
	if (status != STATUS_OK) {
		call_free(call);
		return status;
	}
	if (ret_call != NULL) {
		*ret_call = call;
	}
	return STATUS_OK;
}

enum status directory_verify(struct located *located, struct bytes password, int64_t timeout_ms, verify_done done, void *arg, struct directory_call **ret_call)
{
	struct directory_call *call = NULL;
	if (password.size == 0) {
		return STATUS_CREDENTIAL_WRONG;
	}
	enum status status = call_on(located, CALL_VERIFY, timeout_ms, arg, &call);
	if (status != STATUS_OK) {
		return status;
	}
	call->done.verify = done;
	status = verification_start(call->directory, located->connection, located->user.account.dn, password, NULL, on_verified, call, &call->verification);
	if (status != STATUS_OK) {
		call_free(call);
		return status;
	}
	if (ret_call != NULL) {
		*ret_call = call;
	}
	return STATUS_OK;
}
