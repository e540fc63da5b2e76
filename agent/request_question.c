/* The stages of the operations that only ask: what is known of a user, his rules, and whether a password is his. */
#include "agent/request_answer.h"
#include "agent/request_internal.h"
#include "base/clock.h"

/* Verified ---------------------------------------------------------------------------------------------------------------------------- */

enum status request_admit_guess(struct request *request)
{
	if (request->guesses)
		return STATUS_OK;
	const struct password_policy *policy = &located_account(request->located)->policy;
	unsigned threshold = policy->source != POLICY_UNKNOWN ? policy->lockout_threshold : 0;
	enum status status = limits_admit_guess(request->all->world.limits, request->entry.user_guid, threshold, clock_now_ms(), &request->result.retry_after);
	request->guesses = status == STATUS_OK;
	return status;
}

/* Said only where the old password is right, or was not compared. */
static bool acquits(enum status status)
{
	switch (status_outcome(status)) {
	case OUTCOME_APPLIED:
	case OUTCOME_ANSWERED:
		return true;
	case OUTCOME_REFUSED:
		return status != STATUS_CREDENTIAL_WRONG;
	default:
		return status == STATUS_DIRECTORY_BUSY || status == STATUS_DIRECTORY_UNAVAILABLE || status == STATUS_DIRECTORY_REFERRAL || status == STATUS_DIRECTORY_ENCRYPTION ||
		       status == STATUS_DIRECTORY_NO_POLICY_CONTROL;
	}
}

/* An answer that does not say what it is about counts: else it could be asked for without end. */
bool request_was_wrong(enum status status, const struct directory_answer *answer)
{
	/* Held back by request_still_wanted: before the old password was tried, or behind a bind that was good. */
	if (status == STATUS_REQUEST_EXPIRED || status == STATUS_CHANNEL_CLOSED)
		return false;
	bool tried = answer && (answer->sent || answer->tried), open = tried && (answer->sent ? !answer->answered : answer->ldap_result < 0);
	return status == STATUS_CREDENTIAL_WRONG || (tried && (open || !acquits(status)));
}

static void handle_verified(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	request_mark(request, STAGE_WRITE);
	request_note_answer(request, answer);
	request->guessed_wrong = request_was_wrong(status, answer);
	request_resume(request, status);
}

enum status request_verify_password(struct request *request)
{
	struct directory_call *call;
	enum status status = verified_still_valid(request->verified, clock_now_ms() / 1000);
	if (status != STATUS_OK)
		return status;
	request->pending = true;
	request->marked_us = clock_monotonic_us();
	return directory_verify(request->located, secret_bytes(&request->secret.old_password), realm_settings(request->realm)->write_timeout_ms, handle_verified, request, &call);
}

/* Found ------------------------------------------------------------------------------------------------------------------------------- */

enum status request_admit_question(struct request *request)
{
	return limits_admit_lookup(request->all->world.limits, clock_now_ms(), &request->result.retry_after);
}

enum status request_answer_lookup(struct request *request)
{
	request->result.account = answer_account(located_account(request->located), clock_now_ms() / 1000);
	return request->result.account ? STATUS_FOUND : STATUS_AGENT_INTERNAL;
}

enum status request_answer_policy(struct request *request)
{
	const struct account *account = located_account(request->located);
	request->result.policy = answer_rules(account, located_policy_control(request->located), clock_now_ms() / 1000);
	if (account->policy.source == POLICY_UNKNOWN)
		request->result.warnings |= WARNING_POLICY_UNREADABLE;
	return request->result.policy ? STATUS_FOUND : STATUS_AGENT_INTERNAL;
}
