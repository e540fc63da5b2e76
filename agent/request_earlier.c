/* A request that may have been applied before: by another agent (first_iat; or while this one waited for it to be delivered again, was held up on its way, or was about to write), or by this one before it started, where the journal was lost. The user's record, written since, and one bind with the new
 * password tell; then the same is not written again, and no success becomes a refusal by history or minimum age.
 * Where another agent may have been asked, the record was written since, and the bind may not be made or says nothing, nobody knows whose write that is: outcome.unknown. To write then would be to write twice on one
 * server, if the other one has; to pass the directory's refusal on would be to call a success refused. Of what this agent itself did before its start the journal knows: a whole one is believed (journal.h).
 * Where it was begun anew in the place of a lost one, this agent before that is as another one; a copy of the whole folder, brought back, cannot know what came behind it.
 * A record that cannot be read is taken for one that was written since, where another agent may have been asked: the bind is made, and only a right one says something. So for a user whose record the agent
 * may not read an attempt behind another agent's ends as applied or unknown, although that one may have done nothing; the first try of an operation goes on as ever, unless its look had to be repeated for its age. Where there is no record, for certain
 * (a user who never had a password in Active Directory), nothing was written since; the flavor ldap falls back on the time of the entry's last modification, which every server keeps. */
#include <stdio.h>

#include "agent/request_internal.h"
#include "base/clock.h"

/* Of the service's clock against the server's: each may be that far from the agent's. */
#define CLOCKS_SLACK_S 120
/* No operation is tried for longer (proto/README.md section 7); what claims more is taken for this. */
#define OPERATION_MAX_S 900
/* A request may be issued so far ahead of the agent's clock. */
#define AHEAD_S 60
/* A service could send such requests for everybody. */
#define WRONG_AN_HOUR 1

/* So late that another agent may have been asked meanwhile: who owns the channel can end it towards the service, and bring the request here long after. */
static bool came_late(const struct request *request)
{
	int64_t came_s = (clock_now_ms() - (clock_monotonic_us() - request->started_us) / 1000) / 1000;
	return request->claims->failover_after && came_s >= request->claims->iat + request->claims->failover_after;
}

static bool may_be_anothers(const struct request *request)
{
	return request->claims->first_iat || request->was_undelivered || request->overtaken || came_late(request);
}

/* This agent may have applied it, and the journal that knew was lost. */
static bool may_be_lost(const struct request *request)
{
	return request->all->lost_s && request->claims->iat <= request->all->lost_s + AHEAD_S;
}

enum status request_judge_expired(struct request *request, const struct request_ids *ids)
{
	if (!request->all->lost_s || ids->exp > request->all->lost_s + REQUEST_EXP_MAX_S || !(1u << ids->op & (1u << OP_RESET | 1u << OP_CHANGE | 1u << OP_UNLOCK)))
		return STATUS_REQUEST_EXPIRED;
	snprintf(request->why, sizeof request->why, "this agent may have applied it in time, and the journal that knew was lost");
	return STATUS_OUTCOME_UNKNOWN;
}

enum status request_judge_end(struct request *request, enum status status)
{
	enum outcome outcome = status_outcome(status);
	bool untold = request->claims && request_sets_password(request) && may_be_lost(request) && !request->judged;
	if (!untold || (outcome != OUTCOME_FAILED && outcome != OUTCOME_REFUSED))
		return status;
	snprintf(request->why, sizeof request->why, "%s, and this agent may have applied it before its journal was lost", status_code(status));
	request_forget_answer(request);
	free(request->result.reason);
	request->result.reason = NULL;
	request->result.retry_after = 0;
	return STATUS_OUTCOME_UNKNOWN;
}

/* By whom nobody here can say. */
static bool may_be_done(const struct request *request)
{
	return may_be_anothers(request) || may_be_lost(request);
}

enum status request_judge_overtaken(struct request *request)
{
	const struct replication_record *record = located_password_record(request->located);
	bool has_others = may_be_anothers(request) || request->claims->failover_after;
	if (!has_others || !record->known || request_record_is_unchanged(request, record))
		return STATUS_OK;
	if (request->overtaken) {
		snprintf(request->why, sizeof request->why, "somebody else, perhaps another agent with this operation, wrote this user's password twice while it was being looked at");
		return STATUS_OUTCOME_UNKNOWN;
	}
	request->overtaken = request->stale = true;
	request_go_back(request);
	return STATUS_OK;
}

/* 0: this is the first time. */
static int64_t tried_since(const struct request *request)
{
	const struct request_claims *claims = request->claims;
	int64_t oldest = claims->iat - OPERATION_MAX_S;
	if (claims->first_iat)
		return claims->first_iat > oldest ? claims->first_iat : oldest;
	return may_be_done(request) || claims->iat <= request->all->started_s ? claims->iat : 0;
}

/* The time of a young record is as good as any. */
bool request_may_be_earlier(const struct request *request, const struct replication_record *record)
{
	int64_t since = tried_since(request);
	return since && record->time_s >= since - CLOCKS_SLACK_S && !request_same_record(record, &request->told);
}

static bool may_be_written_since(const struct request *request)
{
	const struct replication_record *record = located_password_record(request->located);
	/* Late alone is not enough: a clock that is seconds ahead would leave every first try unknown. */
	if (!record->known)
		return !record->absent && (request->claims->first_iat || request->was_undelivered || request->overtaken || may_be_lost(request));
	return request_may_be_earlier(request, record);
}

/* The new password is the old one: a bind shows what the user had anyway, and not whether it was written. */
static bool keeps_the_password(const struct request *request)
{
	return request->op == OP_CHANGE && bytes_equal(secret_bytes(&request->secret.old_password), secret_bytes(&request->secret.new_password));
}

/* No bind has told, or will. */
static bool is_untold(const struct request *request)
{
	return (may_be_done(request) || keeps_the_password(request)) && may_be_written_since(request);
}

static bool is_done(const struct request *request, enum proof proof)
{
	return proof == PROOF_RIGHT_MUST_CHANGE || (proof == PROOF_RIGHT && !request->claims->must_change);
}

static enum status leave_unknown(struct request *request)
{
	if (!located_password_record(request->located)->known)
		snprintf(request->why, sizeof request->why, "another agent may have been asked, or this one before its journal was lost, and when this user's password was written last cannot be read");
	return STATUS_OUTCOME_UNKNOWN;
}

static void handle_before(struct request *request, enum proof proof, struct located *located)
{
	if (is_done(request, proof))
		request_skip_the_rest(request);
	else if (proof != PROOF_NOTHING)
		request->told = *located_password_record(located);
	request->judged = proof != PROOF_NOTHING;
	request_resume(request, proof == PROOF_NOTHING && may_be_done(request) ? leave_unknown(request) : STATUS_OK);
}

static bool prove(struct request *request, proof_done done)
{
	struct located *located = may_be_written_since(request) && !keeps_the_password(request) ? located_ref(request->located) : NULL;
	if (located && request_prove(request, located, WRONG_AN_HOUR, done))
		return true;
	located_free(located);
	return false;
}

enum status request_judge_earlier(struct request *request)
{
	const struct replication_record *record = located_password_record(request->located);
	bool comparable = request->record.known && record->known;
	/* Looked at again behind an intent: it was written meanwhile, as where the recheck finds that. */
	if (request->intent && request->claims->failover_after && comparable && !request_record_is_unchanged(request, record))
		request->overtaken = true;
	/* Where that cannot be said it may have been: whoever stood still may have slept through the channel's end. */
	request->was_undelivered |= request->attempts[FIRST].looked_again && !comparable;
	request->pending = prove(request, handle_before);
	request->judged = !request->pending && !is_untold(request);
	return request->pending || request->judged ? STATUS_OK : leave_unknown(request);
}

/* Refused ----------------------------------------------------------------------------------------------------------------------------- */

static void end_refused(struct request *request, bool untold)
{
	if (untold)
		request_resume(request, leave_unknown(request));
	else
		request_explain(request, request->refusal);
}

static void handle_behind(struct request *request, enum proof proof, struct located *located)
{
	if (!is_done(request, proof)) {
		end_refused(request, proof == PROOF_NOTHING && may_be_done(request));
		return;
	}
	/* What is told is of the write before. */
	request->wrote = false;
	request_forget_answer(request);
	request_skip_the_rest(request);
	request_resume(request, STATUS_OK);
}

static void handle_read(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	if (request->all->closing) /* the intent stays, and is settled at the next start */
		return;
	if (status != STATUS_OK || !prove(request, handle_behind))
		end_refused(request, status != STATUS_OK ? may_be_done(request) : is_untold(request));
}

bool request_hold_refusal(struct request *request, enum status refusal)
{
	struct directory_call *call;
	request->refusal = refusal;
	return tried_since(request) &&
	       directory_recheck(request->located, realm_settings(request->realm)->locate_timeout_ms, handle_read, request, &call) == STATUS_OK;
}
