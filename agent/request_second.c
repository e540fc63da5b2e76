/* A user is waiting: where the answer to a write was lost, the same is written on another server, once, and what is told is true whichever of the two writes survives replication
 * (MS-ADTS 3.1.1.1.9: the greater version, then the later second, then the greater invocationId). Where that cannot be known beforehand there is no second write. */
#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"

#define RECORD_SLACK_S 2

/* Nothing more can come of it here; settling goes on. `over`: no other try either. */
static void give_up(struct request *request, bool over)
{
	request->second_running = false;
	request->second_over |= over;
	request->why[0] = '\0';
	located_free(request->located);
	request->located = NULL;
	request_drop_secret(request);
	request_settle_on(request);
}

/* Whether a write over this record here stands against all that the first server may hold by then: the record of before, and our first write, which sets the same. */
static bool would_stand(const struct request *request, const struct replication_record *record, int64_t now_s)
{
	uint32_t known = request->entry.password_version;
	return record->version >= known || (record->version + 1 == known && now_s > request->record.time_s);
}

/* Written through the first server since the intent: by us, or by somebody who came after us. */
static bool is_since_intent(const struct request *request, const struct replication_record *record)
{
	return memcmp(record->originator, request->entry.invocation_id, sizeof record->originator) == 0 && record->originating_usn > request->entry.highest_committed_usn;
}

/* Somebody else's record is written over only where it is from before this request came, and from before the operation's first attempt. No bind is made here that would tell. */
static bool is_for_second_write(const struct request *request)
{
	const struct server_position *position = located_position(request->located);
	const struct replication_record *record = located_password_record(request->located);
	if (request->undelivered || !position->invocation_known || memcmp(position->invocation_id, request->entry.invocation_id, 16) == 0)
		return false;
	/* What is not locked here was perhaps never locked here: that says nothing of the first server. */
	if (!request_sets_password(request))
		return located_account(request->located)->lockout_time_set;
	if (!record->known || request_record_is_unchanged(request, record))
		return record->known;
	if (is_since_intent(request, record) || request_may_be_earlier(request, record))
		return false;
	int64_t now_s = position->current_time_s, ago_s = (clock_boottime_us() - request->came_us) / 1000000;
	return now_s && record->time_s < now_s - ago_s - RECORD_SLACK_S && would_stand(request, record, now_s);
}

/* The result keeps what the first server said of the user. */
static bool is_allowed(struct request *request)
{
	int was_locked = request->result.was_locked;
	bool allowed = is_for_second_write(request) && request_judge_again(request) == STATUS_OK;
	request->result.was_locked = was_locked;
	return allowed;
}

static void handle_written(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	CRASH_POINT(SECOND_MODIFY_ANSWERED);
	bool sent = answer && answer->sent, lost = status != STATUS_OK && sent && !answer->answered;
	if (status == STATUS_OK) {
		request_note_answer(request, answer);
		request_look_after(request, request->located);
		request_finish(request, STATUS_OK);
		return;
	}
	log_event(LOG_NOTICE, "request.second",
	          LOG_FIELDS({ LOG_REQUEST_ID, request->entry.request_id }, { LOG_SERVER, request->entry.second_server }, { LOG_CODE, status_code(status) }),
	          lost ? "the answer to the second write was lost, too" : "the second write was not done; the fate of the first one is open");
	request->attempts[SECOND].open = lost;
	request->attempts[SECOND].lost_us = clock_boottime_us();
	if (lost) {
		request->attempts[SECOND].sent_over = request->located;
		request->located = NULL;
	}
	give_up(request, sent);
}

static void handle_recheck(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	struct directory_call *call;
	/* The first write may have come here by replication since. */
	if (status == STATUS_OK && request_settled_by(request, request->located))
		return;
	if (status != STATUS_OK || !is_allowed(request)) {
		give_up(request, false);
		return;
	}
	struct directory_change change = request_change(request);
	status = directory_write(request->located, &change, realm_settings(request->realm)->write_timeout_ms, handle_written, request, &call);
	CRASH_POINT(SECOND_MODIFY_MADE);
	if (status != STATUS_OK)
		give_up(request, status == STATUS_DIRECTORY_NO_POLICY_CONTROL);
}

static void handle_intent(enum status status, void *arg)
{
	struct request *request = arg;
	struct directory_call *call;
	if (request->all->closing)
		return;
	CRASH_POINT(SECOND_INTENT_RECORDED);
	request->rechecked_us = clock_boottime_us();
	if (status == STATUS_OK)
		status = directory_recheck(request->located, realm_settings(request->realm)->locate_timeout_ms, handle_recheck, request, &call);
	if (status != STATUS_OK)
		give_up(request, false);
}

/* On disk before the write, so that a crash in between is settled over both. */
static enum status record_intent(struct request *request)
{
	const struct server_position *position = located_position(request->located);
	const struct replication_record *record = located_password_record(request->located);
	struct journal_entry *entry = &request->entry;
	snprintf(entry->second_server, sizeof entry->second_server, "%s", position->server);
	memcpy(entry->second_invocation_id, position->invocation_id, sizeof entry->second_invocation_id);
	entry->second_committed_usn = position->highest_committed_usn;
	entry->second_password_version = record->version;
	request->server_time_s = position->current_time_s;
	memcpy(entry->second_password_originator, record->originator, sizeof entry->second_password_originator);
	entry->second_password_originating_usn = record->originating_usn;
	entry->second_at_ms = clock_now_ms();
	enum status status = journal_intent(request->all->world.journal, entry, handle_intent, request);
	CRASH_POINT(SECOND_INTENT_GIVEN);
	return status;
}

static void handle_located(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	request->located = take_located;
	if (status == STATUS_OK && request_settled_by(request, take_located))
		return;
	if (status != STATUS_OK || !is_allowed(request) || record_intent(request) != STATUS_OK)
		give_up(request, false);
}

bool request_second_begin(struct request *request)
{
	struct directory_call *call;
	static const uint8_t unknown[16];
	if (request->second_over || !request->verified)
		return false;
	/* A change compares the old password: a second one could be a second wrong try. Behind the bind that decides, another's write is not written over. */
	if (request->entry.state != JOURNAL_INTENT || request->op == OP_CHANGE || memcmp(request->entry.invocation_id, unknown, sizeof unknown) == 0 || verified_still_valid(request->verified, clock_now_ms() / 1000) != STATUS_OK) {
		request->second_over = true;
		request_drop_secret(request);
		return false;
	}
	struct directory *directory = realm_directory(request->realm);
	request->second_running = directory_has_beside(directory, request->entry.server) &&
	                          directory_locate_beside(directory, realm_identity(request->realm), request->entry.user_guid, request->entry.server, realm_settings(request->realm)->locate_timeout_ms,
	                                                  handle_located, request, &call) == STATUS_OK;
	return request->second_running;
}
