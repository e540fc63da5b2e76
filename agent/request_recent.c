/* Who was written to lately, and where: for replication to lose nothing that was told, a user is written where he was written last until the others have that. */
#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"

void request_remember_write(struct request *request)
{
	struct requests *all = request->all;
	unsigned i = all->recent_next++ % RECENT_WRITES;
	const struct journal_entry *entry = &request->entry;
	bool second = request->result.server && strcasecmp(request->result.server, entry->second_server) == 0;
	struct recent_write *write = &all->recent[i];
	*write = (struct recent_write){ .ended_us = clock_monotonic_us(), .time_s = request->server_time_s };
	strcpy(write->guid, entry->user_guid);
	snprintf(write->server, sizeof write->server, "%s", second ? entry->second_server : entry->server);
	/* What was refused counted nothing up; the flavor ldap counts nothing. */
	uint32_t version = second ? entry->second_password_version : entry->password_version;
	if (entry->sets_password && entry->counts && version)
		write->version = version + 1;
}

/* The row's time is by the agent's clock, from which the servers' may differ by that much. */
#define CLOCK_SKEW_S 60

void request_restore_write(struct requests *all, const struct journal_entry *entry)
{
	uint32_t first = entry->password_version, second = entry->second_password_version;
	AUTO_FREE char *told = NULL;
	if (!entry->sets_password || !entry->counts || !first || asprintf(&told, "\"server\":\"%s\"", entry->second_server) < 0)
		return;
	bool on_second = entry->second_server[0] && entry->result && strstr(entry->result, told);
	struct recent_write *write = &all->recent[all->recent_next++ % RECENT_WRITES];
	*write = (struct recent_write){ .ended_us = clock_monotonic_us(), .version = (on_second ? second : first) + 1, .time_s = entry->outcome_at_ms / 1000 + CLOCK_SKEW_S };
	strcpy(write->guid, entry->user_guid);
	strcpy(write->server, on_second ? entry->second_server : entry->server);
}

/* NULL: none that is remembered. */
static const struct recent_write *last_write(const struct request *request)
{
	const struct requests *all = request->all;
	for (unsigned n = 1; n <= RECENT_WRITES && n <= all->recent_next; n++) {
		const struct recent_write *write = &all->recent[(all->recent_next - n) % RECENT_WRITES];
		if (strcmp(write->guid, request->entry.user_guid) == 0)
			return write;
	}
	return NULL;
}

/* True where this user was written to since the reading began: what was read is stale, and settling would judge by it. */
bool request_written_since(const struct request *request)
{
	const struct requests *all = request->all;
	unsigned count = all->recent_next < RECENT_WRITES ? all->recent_next : RECENT_WRITES;
	for (unsigned n = 1; n <= count; n++) {
		unsigned i = (all->recent_next - n) % RECENT_WRITES;
		if (all->recent[i].ended_us < request->located_us)
			return false;
		if (strcmp(all->recent[i].guid, request->entry.user_guid) == 0)
			return true;
	}
	return count == RECENT_WRITES;
}

/* The user was written last on another server, and this one has not taken that over. */
static bool is_behind(const struct request *request, const struct recent_write *last)
{
	const struct replication_record *record = located_password_record(request->located);
	return last && last->version && record->known && record->version < last->version && strcasecmp(last->server, located_position(request->located)->server) != 0;
}

const char *request_server_ahead(const struct request *request)
{
	const struct recent_write *last = last_write(request);
	return is_behind(request, last) ? last->server : NULL;
}

/* Written a moment ago on a server that is lost now, more than once, and this one knows of neither: what is written here would be replaced by that once it is back
 * (MS-ADTS 3.1.1.1.9: the version comes first), so that no good answer could be given. */
enum status request_judge_lineage(struct request *request)
{
	const struct recent_write *last = request_sets_password(request) ? last_write(request) : NULL;
	const struct server_position *position = located_position(request->located);
	const struct replication_record *record = located_password_record(request->located);
	if (!is_behind(request, last) || (record->version + 1 == last->version && position->current_time_s > last->time_s + 1))
		return STATUS_OK;
	snprintf(request->why, sizeof request->why, "this user was written on %.80s before, and %.80s has not taken that over yet", last->server, position->server);
	return STATUS_DIRECTORY_UNAVAILABLE;
}
