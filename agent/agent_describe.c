/* What the agent looks like from outside: ready or not and why, for the notification, the log and writebackctl. */
#include <stdio.h>

#include "agent/agent.h"
#include "base/clock.h"

unsigned agent_sessions_ready(const struct agent *agent)
{
	unsigned count = 0;
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		count += agent->sessions[i] && session_state(agent->sessions[i]) == SESSION_READY;
	return count;
}

static unsigned endpoints_known(const struct agent *agent)
{
	unsigned count = 0;
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		count += agent->endpoints[i].known;
	return count;
}

void agent_describe_directory(const struct realm *realm, char *text, size_t capacity)
{
	struct directory_health health;
	char at[CLOCK_TEXT_SIZE] = "";
	directory_health(realm_directory(realm), &health);
	clock_format(health.next_try_s * 1000, at);
	bool waits = health.servers_up == 0 && health.next_try_s;
	snprintf(text, capacity, "%s%s%s", health.text, waits ? "; next try at " : "", waits ? at : "");
	utf8_mend(text);
}

void agent_describe_unenrolled(const struct agent *agent, char *text, size_t capacity)
{
	snprintf(text, capacity, "not enrolled: %s", agent->identity_fault[0] ? agent->identity_fault : "writebackctl enroll");
}

/* The first loss that stands; "": there is none, or it is not known yet. */
static const char *last_loss(const struct agent *agent)
{
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->endpoints[i].known && agent->endpoints[i].told[0])
			return agent->endpoints[i].told;
	return "";
}

bool agent_is_ready(const struct agent *agent, char *why, size_t capacity)
{
	why[0] = 0;
	if (agent->stopping)
		snprintf(why, capacity, "stopping: what is in flight is finished first, nothing new is taken");
	else if (!agent->identity.enrolled)
		agent_describe_unenrolled(agent, why, capacity);
	else if (agent->identity.key_set.keys && !identity_trusts(&agent->identity, clock_now_ms() / 1000))
		snprintf(why, capacity, "the service's key set has expired: nothing is accepted until its administrator has signed a new one (reset-service rotate-keys)");
	else if (!link_attached(agent->link))
		snprintf(why, capacity, "writebackd-channel is not connected");
	else if (agent_sessions_ready(agent) == 0)
		snprintf(why, capacity, "no channel to the service%s%s", *last_loss(agent) ? ": " : "", last_loss(agent));
	else if (!journal_writable(agent->journal))
		snprintf(why, capacity, "the journal cannot be written");
	else if (limits_latched(agent->limits, LATCH_RESETS))
		snprintf(why, capacity, "resets are latched: writebackctl resume");
	else if (limits_latched(agent->limits, LATCH_GUESSES))
		snprintf(why, capacity, "verify and change are latched: writebackctl resume");
	for (size_t i = 0; !why[0] && i < realms_count(agent->realms); i++) {
		struct directory_health health;
		directory_health(realm_directory(realms_at(agent->realms, i)), &health);
		struct realm *realm = realms_at(agent->realms, i);
		char text[700];
		agent_describe_directory(realm, text, sizeof text);
		if (health.servers_up == 0 || !realm_names_good(realm, text, sizeof text))
			snprintf(why, capacity, "directory %s: %s", realm_name(realm), text);
	}
	utf8_mend(why);
	return !why[0];
}

void agent_describe(const struct agent *agent, char *text, size_t capacity)
{
	char why[800];
	bool ready = agent_is_ready(agent, why, sizeof why);
	int size = snprintf(text, capacity, "%s%s: channel %u/%u", ready ? "Ready" : "Degraded, ", why, agent_sessions_ready(agent), endpoints_known(agent));
	for (size_t i = 0; size > 0 && (size_t)size < capacity && i < realms_count(agent->realms); i++) {
		struct realm *realm = realms_at(agent->realms, i);
		struct directory_health health;
		directory_health(realm_directory(realm), &health);
		/* What is down was said as the reason already, for the first one; the others are told apart from those that are up. */
		if (health.servers_up == 0)
			size += snprintf(text + size, capacity - size, ", %s is down", realm_name(realm));
		else
			size += snprintf(text + size, capacity - size, ", %s via %s", realm_name(realm), health.text);
	}
	uint64_t by_outcome[OUTCOME_SETTLING + 1] = { 0 };
	for (unsigned code = 0; code < STATUS_COUNT; code++)
		by_outcome[status_outcome(code)] += requests_count(agent->requests, code);
	if (size > 0 && (size_t)size < capacity)
		size += snprintf(text + size, capacity - size, ", %llu applied, %llu refused, %llu failed", (unsigned long long)by_outcome[OUTCOME_APPLIED],
		                 (unsigned long long)by_outcome[OUTCOME_REFUSED], (unsigned long long)by_outcome[OUTCOME_FAILED]);
	int64_t last_ms = requests_last_ms(agent->requests);
	if (last_ms && size > 0 && (size_t)size < capacity)
		snprintf(text + size, capacity - size, ", last %lld min ago", (long long)((clock_now_ms() - last_ms) / 60000));
}
