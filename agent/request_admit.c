/* Stages: whether this user may be served, in which turn, how often, and with this password. */
#include <stdio.h>
#include <string.h>

#include "agent/gate/policy.h"
#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/nfc.h"

enum status request_judge_scope(struct request *request)
{
	const struct account *account = located_account(request->located);
	/* Names in the scope that were never looked up: that says nothing about the user. */
	if (!realm_scope_known(request->realm))
		return STATUS_DIRECTORY_UNAVAILABLE;
	enum status status = scope_judge(realm_scope(request->realm), account, request->why, sizeof request->why);
	if (status != STATUS_OK)
		return status;
	request->why[0] = 0;
	request_tell_user(request);
	return STATUS_OK;
}

enum status request_judge_state(struct request *request)
{
	const struct account *account = located_account(request->located);
	enum status status = scope_judge_state(realm_scope(request->realm), account, request->op != OP_UNLOCK, request->claims->must_change, clock_now_ms() / 1000);
	/* A change does not unlock, and what is tried against a locked account is not even compared. */
	return status == STATUS_OK && request->op == OP_CHANGE && account->locked ? STATUS_USER_LOCKED : status;
}

static void handle_turn(void *arg)
{
	struct request *request = arg;
	request_stop_timer(request);
	request->waits_for_turn = false;
	request->has_turn = true;
	request_resume(request, request->all->closing ? STATUS_DIRECTORY_UNAVAILABLE : STATUS_OK);
}

/* Whatever holds up the one in front: that may be a disk which takes nothing. */
static void handle_exp(evutil_socket_t fd, short what, void *arg)
{
	struct request *request = arg;
	request_make_room(request);
	request_resume(request, STATUS_REQUEST_EXPIRED);
}

static enum status wait_for_turn(struct request *request)
{
	int64_t left_ms = request->claims->exp * 1000 - clock_now_ms();
	if (!request_set_timer(request, left_ms > 0 ? left_ms : 0, handle_exp)) {
		limits_end_turn(request->all->world.limits, &request->turn);
		return STATUS_AGENT_INTERNAL;
	}
	request->waits_for_turn = request->pending = true;
	return STATUS_OK;
}

static bool is_settled_now(const struct request *request)
{
	for (const struct request *other = request->all->first; other; other = other->next)
		if (other->settling && strcmp(other->entry.user_guid, request->entry.user_guid) == 0)
			return true;
	return false;
}

enum status request_take_turn(struct request *request)
{
	if (is_settled_now(request))
		return STATUS_USER_BUSY;
	request->turn.granted = handle_turn;
	request->turn.arg = request;
	bool now = false;
	enum status status = limits_take_turn(request->all->world.limits, request->entry.user_guid, &request->turn, &now);
	request->has_turn = status == STATUS_OK && now;
	return status == STATUS_OK && !now ? wait_for_turn(request) : status;
}

enum status request_admit_write(struct request *request)
{
	if (request->admitted)
		return STATUS_OK;
	enum status status = limits_admit(request->all->world.limits, request->entry.user_guid, request_sets_password(request), clock_now_ms(), &request->result.retry_after);
	request->admitted = status == STATUS_OK;
	return status;
}

enum status request_decrypt(struct request *request)
{
	if (request->secret.operation_id[0])
		return STATUS_OK;
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	struct jose_key *keys[IDENTITY_DECRYPTION_KEYS];
	identity_decryption_keys(request->all->world.identity, keys);
	request->marked_us = clock_monotonic_us();
	enum jose_reason reason = jose_decrypt(bytes_of_string(request->claims->secret), keys, &plaintext);
	request_mark(request, STAGE_DECRYPT);
	if (reason != JOSE_OK) {
		request->result.reason = strdup(jose_reason_name(reason));
		return reason == JOSE_INTERNAL ? STATUS_AGENT_INTERNAL : STATUS_REQUEST_UNDECRYPTABLE;
	}
	const char *member = NULL;
	enum status status = secret_claims_parse(&plaintext, request->claims, &request->secret, &member);
	CRASH_POINT(DECRYPTED);
	if (status == STATUS_OK && request_is(request, NEW_PASSWORD)) {
		member = "new_password";
		status = policy_password_form(secret_bytes(&request->secret.new_password));
	}
	if (status == STATUS_OK && request_is(request, OLD_PASSWORD)) {
		member = "old_password";
		status = policy_password_form(secret_bytes(&request->secret.old_password));
	}
	bool is_nfc = true;
	if (status == STATUS_OK && request_is(request, NEW_PASSWORD))
		status = nfc_check(secret_bytes(&request->secret.new_password), &is_nfc);
	request->result.warnings |= is_nfc ? 0 : WARNING_PASSWORD_NOT_NFC;
	if (status != STATUS_OK && member)
		request->result.reason = strdup(member);
	return status;
}

enum status request_judge_password(struct request *request)
{
	const struct account *account = located_account(request->located);
	struct result *result = &request->result;
	if (request->claims->enforce_policy && !request_policy_enforced(request)) {
		if (realm_settings(request->realm)->policy_hints == POLICY_HINTS_REQUIRE)
			return STATUS_DIRECTORY_NO_POLICY_CONTROL;
		result->warnings |= WARNING_POLICY_NOT_ENFORCED;
	}
	if (account->policy.source == POLICY_UNKNOWN)
		result->warnings |= WARNING_POLICY_UNREADABLE;
	/* The directory itself would take it, and it would mean nothing. */
	if (account->is_entry && request->claims->must_change && !account->policy.must_change)
		return STATUS_REQUEST_UNSUPPORTED;
	return policy_judge(&account->policy, account, secret_bytes(&request->secret.new_password), request_policy_enforced(request), clock_now_ms() / 1000, result->rules, &result->rule_count);
}

enum status request_answer_check(struct request *request)
{
	return STATUS_PLAUSIBLE;
}
