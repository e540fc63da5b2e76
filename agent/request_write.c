/* Stages: the intent on disk, one more look at the user, and the write. */
#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/crash.h"

/* Writing 0 over 0 is no write: an unlock of an account that is not locked is done. */
enum status request_leave_if_unlocked(struct request *request)
{
	if (!located_account(request->located)->lockout_time_set)
		request_skip_the_rest(request);
	return STATUS_OK;
}

static void handle_intent(enum status status, void *arg)
{
	struct request *request = arg;
	request->intent |= status == STATUS_OK;
	CRASH_POINT(INTENT_RECORDED);
	request_mark(request, STAGE_INTENT);
	/* Closing: the intent stays, and is settled at the next start. */
	if (!request->all->closing)
		request_resume(request, status);
}

enum status request_record_intent(struct request *request)
{
	const struct server_position *position = located_position(request->located);
	const struct replication_record *record = located_password_record(request->located);
	struct journal_entry *entry = &request->entry;
	entry->state = JOURNAL_INTENT;
	snprintf(entry->server, sizeof entry->server, "%s", position->server);
	bool own = request->op == OP_CHANGE && position->own_known;
	memcpy(entry->invocation_id, own ? position->own_id : position->invocation_id, sizeof entry->invocation_id);
	entry->highest_committed_usn = position->highest_committed_usn;
	/* What nothing can be settled by is not kept: no later record is the same. */
	bool settles = record->known && !record->young;
	entry->password_version = settles ? record->version : 0;
	entry->password_originating_usn = settles ? record->originating_usn : 0;
	memset(entry->password_originator, 0, sizeof entry->password_originator);
	if (settles)
		memcpy(entry->password_originator, record->originator, sizeof entry->password_originator);
	request->record = *record;
	request->server_time_s = position->current_time_s;
	entry->intent_at_ms = clock_now_ms();
	request->marked_us = clock_monotonic_us();
	enum status status = journal_intent(request->all->world.journal, entry, handle_intent, request);
	request->pending = status == STATUS_OK;
	CRASH_POINT(INTENT_GIVEN);
	return status;
}

static void handle_recheck(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	if (status != STATUS_OK)
		request_note_answer(request, answer);
	request_resume(request, status);
}

enum status request_recheck(struct request *request)
{
	struct directory_call *call;
	request->pending = true;
	request->rechecked_us = clock_boottime_us();
	return directory_recheck(request->located, realm_settings(request->realm)->locate_timeout_ms, handle_recheck, request, &call);
}

enum status request_judge_again(struct request *request)
{
	if (strcmp(located_account(request->located)->guid, request->entry.user_guid) != 0)
		return STATUS_USER_NOT_FOUND;
	enum status status = verified_still_valid(request->verified, clock_now_ms() / 1000);
	if (status == STATUS_OK)
		status = request_judge_scope(request);
	return status == STATUS_OK ? request_judge_state(request) : status;
}

static void handle_written(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	request_mark(request, STAGE_WRITE);
	CRASH_POINT(MODIFY_ANSWERED);
	request_note_answer(request, answer);
	if (status == STATUS_CHANNEL_CLOSED) {
		status = request_look_again(request);
		if (status != STATUS_OK || !request->pending)
			request_resume(request, status);
		return;
	}
	request->wrote = answer ? answer->sent : status == STATUS_OK;
	request->guessed_wrong = request_was_wrong(status, answer);
	if (status == STATUS_OK)
		request_look_after(request, request->located);
	/* Everybody may change a password whose old one he knows, but where that is denied to the user. */
	if (status == STATUS_DIRECTORY_DENIED && request->op == OP_CHANGE && located_account(request->located)->cannot_change)
		status = STATUS_USER_CANNOT_CHANGE;
	if (status == STATUS_OK && answer->incomplete)
		request->result.warnings |= WARNING_MUST_CHANGE_NOT_SET;
	if (status >= STATUS_POLICY_TOO_SHORT && status <= STATUS_POLICY_REJECTED) {
		if (!request_hold_refusal(request, status))
			request_explain(request, status);
	}
	else if (status != STATUS_OK && answer && answer->sent && !answer->answered)
		request_settle(request, status);
	else
		request_resume(request, status);
}

struct directory_change request_change(const struct request *request)
{
	const struct account *account = located_account(request->located);
	return (struct directory_change){
		.set_password = request_sets_password(request), .password = secret_bytes(&request->secret.new_password), .old_password = secret_bytes(&request->secret.old_password), .must_change = request->claims->must_change,
		.clear_lockout = (request->op == OP_UNLOCK || (request->op == OP_RESET && request->claims->unlock)) && account->lockout_time_set, .enforce_policy = request->claims->enforce_policy && request->op == OP_RESET,
		.still_wanted = request_still_wanted,
	};
}

enum status request_write(struct request *request)
{
	struct directory_change change = request_change(request);
	struct directory_call *call;
	/* The other agent or an administrator was quicker. */
	if (!change.set_password && !change.clear_lockout)
		return STATUS_OK;
	request->pending = true;
	CRASH_POINT(RECHECKED);
	enum status status = directory_write(request->located, &change, realm_settings(request->realm)->write_timeout_ms, handle_written, request, &call);
	CRASH_POINT(MODIFY_MADE);
	return status == STATUS_CHANNEL_CLOSED ? request_look_again(request) : status;
}
