/* Stages: which directory, and which user there. */
#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/crash.h"

#define CLOCK_SKEW_MS 60000

/* The domain that the subject names, NULL where it names none. */
static const char *subject_domain(const struct subject *subject)
{
	if (subject->format == SUBJECT_SAM)
		return subject->domain;
	const char *at = subject->format == SUBJECT_UPN ? strrchr(subject->id, '@') : NULL;
	return at ? at + 1 : NULL;
}

static bool is_skewed(int64_t difference_ms)
{
	return difference_ms > CLOCK_SKEW_MS || difference_ms < -CLOCK_SKEW_MS;
}

enum status request_choose_directory(struct request *request)
{
	enum status status = realms_choose(request->all->world.realms, request->claims->directory, subject_domain(&request->claims->subject), &request->realm);
	if (status != STATUS_OK)
		return status;
	snprintf(request->entry.directory, sizeof request->entry.directory, "%s", realm_name(request->realm));
	request->result.directory = strdup(realm_name(request->realm));
	return STATUS_OK;
}

static void handle_located(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	request_mark(request, STAGE_LOCATE);
	CRASH_POINT(SEARCHED);
	if (status == STATUS_OK) {
		located_free(request->located);
		request->located = take_located;
		request_note_user(request);
		/* By the server's time as it was just read: either clock may have been mended, or set wrong, since it was looked at last. */
		int64_t server_s = located_position(take_located)->current_time_s;
		if (server_s && is_skewed(clock_now_ms() - server_s * 1000))
			status = STATUS_AGENT_CLOCK_SKEW;
	} else {
		located_free(take_located);
		request_note_answer(request, answer);
	}
	request_resume(request, status);
}

static enum status begin_locating(struct request *request, enum locate_by by, const char *id, const char *prefer_server)
{
	struct directory_call *call;
	request->located_us = clock_monotonic_us();
	request->pending = true;
	return directory_locate(realm_directory(request->realm), by, id, prefer_server, realm_settings(request->realm)->locate_timeout_ms, handle_located, request, &call);
}

enum status request_locate(struct request *request)
{
	static const enum locate_by by[] = {
		[SUBJECT_OBJECT_GUID] = LOCATE_OBJECT_GUID, [SUBJECT_CONSISTENCY_GUID] = LOCATE_CONSISTENCY_GUID, [SUBJECT_UPN] = LOCATE_UPN, [SUBJECT_SAM] = LOCATE_SAM,
		[SUBJECT_ENTRY_UUID] = LOCATE_ENTRY_UUID, [SUBJECT_UID] = LOCATE_UID,
	};
	return begin_locating(request, by[request->claims->subject.format], request->claims->subject.id, request->claims->prior_server);
}

enum status request_locate_again(struct request *request)
{
	const char *last_server = request_server_ahead(request);
	if (!request_written_since(request) && !request->moving && !request->stale && (!last_server || request->sought))
		return STATUS_OK;
	const char *prefer = request->moving ? NULL : last_server ? last_server : located_position(request->located)->server;
	request->moving = request->stale = false;
	request->sought = true;
	char guid[UUID_SIZE];
	strcpy(guid, request->entry.user_guid);
	return begin_locating(request, realm_identity(request->realm), guid, prefer);
}
