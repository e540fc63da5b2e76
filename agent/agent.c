#include "agent/agent.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define REPEAT_S 30
#define FORGET_S 5
#define READY_AT_LATEST_US 5000000
#define DRAIN_US 20000000
#define LINGER_US 1000000
#define JOURNAL_RETAIN_MS 3600000
#define JOURNAL_ROWS 20000
#define DAY_S 86400
#define PROCESS_BITS 24

static const char *const latched[LATCHES] = { [LATCH_RESETS] = "resets, changes and unlocks", [LATCH_GUESSES] = "'verify' and 'change'" };
const char *const agent_latch_numbers[LATCHES] = { [LATCH_RESETS] = "latched", [LATCH_GUESSES] = "guesses_latched" };

/* Telling it -------------------------------------------------------------------------------------------------------------------------- */

static void tell_status(struct agent *agent)
{
	char text[2048];
	if (!agent->ready_told || agent->stopping)
		return;
	agent_describe(agent, text, sizeof text);
	loop_notify_status(agent->loop, text);
}

/* Once everything has been tried; degraded is ready too: a cloud that is down must not break a boot. */
static void tell_ready(struct agent *agent)
{
	char why[800], text[2048];
	if (agent->ready_told || (!agent_is_ready(agent, why, sizeof why) && clock_monotonic_us() - agent->started_us < READY_AT_LATEST_US))
		return;
	agent->ready_told = true;
	agent_describe(agent, text, sizeof text);
	log_event(LOG_NOTICE, "agent.ready", LOG_FIELDS({ LOG_AGENT_ID, agent->identity.enrolled ? agent->identity.agent_id : NULL }), "%s", text);
	loop_notify_ready(agent->loop, text);
}

/* Sessions ---------------------------------------------------------------------------------------------------------------------------- */

static enum status send_frame(struct session *session, struct bytes frame, void *arg)
{
	struct agent *agent = arg;
	return link_send_frame(agent->link, session_endpoint(session), frame);
}

static void close_endpoint(struct session *session, unsigned close_code, const char *reason, void *arg)
{
	struct agent *agent = arg;
	link_close_endpoint(agent->link, session_endpoint(session), close_code, reason);
}

/* 5.1: the counted starts, and low bits that are in this memory only. Without these as long as the count is not on disk: it would be the next process's too, and that one's bits may be lower. */
static int64_t boot_of(const struct agent *agent)
{
	return agent->identity.boot << PROCESS_BITS | (journal_has_number(agent->journal, "boot") ? agent->process : 0);
}

static void describe_self(struct session_self *ret_self, void *arg)
{
	struct agent *agent = arg;
	*ret_self = (struct session_self){ .directories = agent->hello_directories, .directory_count = realms_count(agent->realms), .operations = settings_operations(agent->settings),
	                                   .max_in_flight = agent->settings->in_flight, .boot = boot_of(agent) };
}

/* The service has asked for this channel to end: as soon as nothing is owed any more. */
static void finish_drained(struct agent *agent)
{
	bool draining = false;
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		draining |= agent->sessions[i] && session_state(agent->sessions[i]) == SESSION_DRAINING;
	if (!draining || agent->stopping || requests_running(agent->requests) > 0 || journal_unacknowledged(agent->journal) > 0)
		return;
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->sessions[i])
			session_end_drain(agent->sessions[i]);
}

static void handle_session_changed(struct session *session, void *arg)
{
	struct agent *agent = arg;
	if (session_state(session) == SESSION_READY) {
		agent->endpoints[session_endpoint(session)].told[0] = 0;
		bool told = log_allowed(&agent->link_lines);
		if (told)
			log_event(LOG_NOTICE, "channel.ready", LOG_FIELDS({ LOG_AGENT_ID, agent->identity.agent_id }), "endpoint %u: the service has welcomed this agent", session_endpoint(session));
		int64_t difference = session_clock_difference_s(session);
		if (told && (difference > 5 || difference < -5))
			log_event(LOG_WARNING, "clock.difference", NULL, "the service's clock is %lld s ahead of ours", (long long)difference);
		requests_channel_ready(agent->requests);
		outbox_repeat(agent->outbox, 0);
		agent_rotation_ready(agent, session);
	}
	if (!session_talks(session))
		requests_channel_lost(agent->requests, session_endpoint(session));
	finish_drained(agent);
	tell_ready(agent);
	tell_status(agent);
}

static void handle_request(struct session *session, struct bytes payload, struct bytes frame, int64_t started_us, void *arg)
{
	struct agent *agent = arg;
	/* Stopping, or about to be another agent: not taken in; the service delivers it again. */
	if (!agent->stopping && !agent->enrolling)
		requests_handle(agent->requests, session_endpoint(session), payload, frame, started_us);
}

static void handle_unverified(struct session *session, struct bytes frame, enum jose_reason reason, void *arg)
{
	struct agent *agent = arg;
	if (!agent->enrolling)
		requests_handle_unverified(agent->requests, session_endpoint(session), frame, reason);
}

static void handle_acknowledged(struct session *session, const char *request_id, void *arg)
{
	struct agent *agent = arg;
	journal_acknowledge(agent->journal, request_id);
	finish_drained(agent);
}

/* Each once for a key set. */
static void warn_of_expiry(struct agent *agent)
{
	static const int days[] = { 30, 14, 7, 1, 0 };
	if (!agent->identity.key_set.keys)
		return;
	int64_t left_s = agent->identity.key_set.exp - clock_now_ms() / 1000;
	for (int i = agent->expiry_warned; i < 5 && left_s < (int64_t)days[i] * DAY_S; i++) {
		agent->expiry_warned = i + 1;
		if (i == 4 || left_s >= (int64_t)days[i + 1] * DAY_S)
			log_event(LOG_WARNING, "keys.expiry", NULL, "the service's key set %s", left_s <= 0 ? "has expired: nothing is accepted until it shows a new one" : "expires soon: its administrator must sign a new one (reset-service rotate-keys)");
	}
}

static void handle_key_set(struct session *session, void *arg)
{
	struct agent *agent = arg;
	agent->expiry_warned = 0;
	journal_set_number(agent->journal, "key_set_version", agent->identity.key_set.version);
	log_event(LOG_NOTICE, "keys.new", NULL, "key set %lld of the service is in force", (long long)agent->identity.key_set.version);
	warn_of_expiry(agent);
}

static void handle_rekeyed(struct session *session, const struct rekeyed *rekeyed, void *arg) { agent_rotation_answered(arg, session, rekeyed); }
static void handle_next_welcomed(struct session *session, void *arg) { agent_rotation_welcomed(arg); }

static struct session *session_of(struct agent *agent, uint8_t endpoint)
{
	static const struct session_callbacks callbacks = { send_frame, close_endpoint, describe_self, handle_session_changed, handle_request, handle_unverified, handle_acknowledged, handle_key_set,
	                                                     handle_rekeyed, handle_next_welcomed, NULL };
	if (!agent->sessions[endpoint]) {
		struct session_callbacks own = callbacks;
		own.arg = agent;
		agent->sessions[endpoint] = session_new(loop_base(agent->loop), endpoint, &agent->identity, &own);
	}
	return agent->sessions[endpoint];
}

/* The endpoint where the request came if it still talks, else any that does. */
static struct session *talking_session(struct agent *agent, uint8_t endpoint)
{
	if (agent->sessions[endpoint] && session_talks(agent->sessions[endpoint]))
		return agent->sessions[endpoint];
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->sessions[i] && session_talks(agent->sessions[i]))
			return agent->sessions[i];
	return NULL;
}

static void send_result(uint8_t endpoint, const char *payload, void *arg)
{
	struct agent *agent = arg;
	struct session *session = talking_session(agent, endpoint);
	AUTO_FREE char *stamped = session ? outbox_stamp(&agent->identity, payload, clock_now_ms() / 1000) : NULL;
	/* What cannot be sent now is repeated from the journal. */
	if (stamped && session_send(session, TYP_RESULT, bytes_of_string(stamped)) != STATUS_OK)
		log_event(LOG_NOTICE, "result.unsent", NULL, "a result waits for a channel");
}

static enum status repeat_result(struct bytes payload, void *arg)
{
	struct agent *agent = arg;
	enum status status = STATUS_CHANNEL_CLOSED;
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->sessions[i] && session_talks(agent->sessions[i]))
			status = session_send(agent->sessions[i], TYP_RESULT, payload);
	return status;
}

/* The link ---------------------------------------------------------------------------------------------------------------------------- */

static void note_certificate(const struct packet_up *up, char *text, size_t capacity)
{
	char until[CLOCK_TEXT_SIZE];
	const char *names = up->peer_names, *issuer = up->peer_issuer;
	clock_format(up->peer_not_after * 1000, until);
	snprintf(text, capacity, "for %s%s%s, valid until %.10s", *names ? names : "(names not told)", *issuer ? ", issued by " : "", issuer, until);
}

static void handle_up(uint8_t endpoint, const struct packet_up *up, void *arg)
{
	struct agent *agent = arg;
	struct session *session = session_of(agent, endpoint);
	agent->endpoints[endpoint].known = true;
	snprintf(agent->endpoints[endpoint].url, sizeof agent->endpoints[endpoint].url, "%s", up->url);
	snprintf(agent->endpoints[endpoint].text, sizeof agent->endpoints[endpoint].text, "%s, %s %s", up->url, up->tls, up->cipher);
	note_certificate(up, agent->endpoints[endpoint].certificate, sizeof agent->endpoints[endpoint].certificate);
	if (session)
		session_up(session);
}

static void handle_down(uint8_t endpoint, const struct packet_down *down, void *arg)
{
	struct agent *agent = arg;
	char told[sizeof agent->endpoints[endpoint].told];
	snprintf(told, sizeof told, "%s: %s", down->code, down->reason);
	bool news = !agent->endpoints[endpoint].known || strcmp(told, agent->endpoints[endpoint].told) != 0;
	agent->endpoints[endpoint].known = true;
	agent->endpoints[endpoint].certificate[0] = 0;
	if (down->url[0])
		snprintf(agent->endpoints[endpoint].url, sizeof agent->endpoints[endpoint].url, "%s", down->url);
	snprintf(agent->endpoints[endpoint].told, sizeof agent->endpoints[endpoint].told, "%s", told);
	snprintf(agent->endpoints[endpoint].text, sizeof agent->endpoints[endpoint].text, "%s", told);
	if (agent->sessions[endpoint]) {
		if (down->close_code == 1008)
			session_refused(agent->sessions[endpoint]);
		agent_rotation_closed(agent, agent->sessions[endpoint], down->close_code, down->reason);
		session_down(agent->sessions[endpoint]);
	}
	/* Each try that fails like the one before it is no news. That the service does not want this agent waits for a person. */
	int level = !news ? LOG_DEBUG : strcmp(down->code, status_code(STATUS_CHANNEL_REJECTED)) == 0 ? LOG_ERR : LOG_NOTICE;
	char number[16] = "";
	if (down->close_code > 0)
		snprintf(number, sizeof number, "%u", down->close_code);
	if (log_allowed(&agent->down_lines))
		log_event(level, news ? "channel.down" : "channel.retry", LOG_FIELDS({ LOG_CODE, down->code }, { "close_code", number[0] ? number : NULL }), "endpoint %u: %s", endpoint, down->reason);
	if (news)
		tell_status(agent);
}

static void handle_frame(uint8_t endpoint, struct bytes frame, void *arg)
{
	struct agent *agent = arg;
	if (agent->sessions[endpoint])
		session_frame(agent->sessions[endpoint], frame, clock_now_ms() / 1000);
}

static void handle_attached(void *arg)
{
	struct agent *agent = arg;
	if (log_allowed(&agent->link_lines))
		log_event(LOG_NOTICE, "link.attached", NULL, "writebackd-channel is connected");
	tell_status(agent);
}

static void forget_endpoints(struct agent *agent)
{
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++) {
		if (agent->sessions[i]) {
			agent_rotation_closed(agent, agent->sessions[i], 0, "");
			session_down(agent->sessions[i]);
		}
		agent->endpoints[i].known = false;
	}
}

static void handle_detached(const char *why, void *arg)
{
	struct agent *agent = arg;
	if (log_allowed(&agent->link_lines))
		log_event(LOG_WARNING, "link.detached", NULL, "writebackd-channel is gone: %s", why);
	forget_endpoints(agent);
	tell_status(agent);
}

void agent_begin_anew(struct agent *agent)
{
	link_drop(agent->link);
	forget_endpoints(agent);
}

void agent_identity_changed(struct agent *agent)
{
	journal_set_number(agent->journal, "key_set_version", agent->identity.key_set_floor);
	agent->expiry_warned = 0;
	agent->identity_fault[0] = 0;
	agent_reset_rotation(agent);
	link_hold(agent->link, STATUS_OK, NULL);
	agent_begin_anew(agent);
	log_event(LOG_NOTICE, "agent.enrolled", LOG_FIELDS({ LOG_AGENT_ID, agent->identity.agent_id }), "enrolled with %s", agent->identity.issuer);
}

/* Now and then ------------------------------------------------------------------------------------------------------------------------ */

static void handle_minute(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	warn_of_expiry(agent);
	agent_rotation_minute(agent);
	tell_status(agent);
}

/* A minute's writes, where nobody limits them, are more than the journal has room for. */
static void handle_forgetting(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	journal_forget(agent->journal, clock_now_ms());
}

static void handle_repeating(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	outbox_repeat(agent->outbox, (REPEAT_S - 1) * 1000);
}

static void handle_health(void *arg)
{
	tell_ready(arg);
	tell_status(arg);
}

static void handle_latch(enum latch latch, void *arg)
{
	struct agent *agent = arg;
	journal_set_number(agent->journal, agent_latch_numbers[latch], 1);
	log_event(LOG_CRIT, "agent.latched", NULL, "%s are stopped: far more %s than on a normal day. Find out why, then 'writebackctl resume'", latched[latch],
	          latch == LATCH_GUESSES ? "wrong passwords" : "requests");
	tell_status(agent);
}

/* Stopping: what is in flight is finished and told, 20 s at the most. */
static bool has_finished(struct agent *agent)
{
	int64_t now = clock_monotonic_us();
	if (requests_running(agent->requests) > 0)
		return now - agent->stopping_us > DRAIN_US;
	if (!agent->idle_us)
		agent->idle_us = now;
	bool told = journal_unacknowledged(agent->journal) == 0 || !talking_session(agent, 0);
	return told || now - agent->idle_us > LINGER_US;
}

static void handle_watching(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	if (!agent->stopping)
		tell_ready(agent);
	else if (has_finished(agent))
		loop_end(agent->loop);
	if (agent->ready_told && !agent->stopping)
		event_del(agent->watching);
}

static void handle_ended(void *arg)
{
	struct agent *agent = arg;
	if (!agent->stopping)
		return;
	event_add(agent->watching, &(struct timeval){ 0, 20000 });
}

void agent_stop(void *arg)
{
	struct agent *agent = arg;
	agent->stopping = true;
	agent->stopping_us = clock_monotonic_us();
	loop_notify_stopping(agent->loop);
	log_event(LOG_NOTICE, "agent.stopping", NULL, "%u requests in flight are finished first", requests_running(agent->requests));
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->sessions[i])
			session_drain(agent->sessions[i], "the agent stops");
	event_add(agent->watching, &(struct timeval){ 0, 50000 });
}

/* Opening and closing ----------------------------------------------------------------------------------------------------------------- */

static enum status open_identity(struct agent *agent, char *why, size_t capacity)
{
	enum status status = identity_load(agent->settings->state_directory, agent->settings->wrap_key_file, &agent->identity, why, capacity);
	/* Files that do not belong together: an enrolment was cut short, or one was lost. The agent must run so that it can be enrolled again. */
	if (status == STATUS_LOCAL_TRUST) {
		snprintf(agent->identity_fault, sizeof agent->identity_fault, "%s", why);
		log_event(LOG_CRIT, "agent.identity", LOG_FIELDS({ LOG_CODE, status_code(status) }), "%s", why);
		status = STATUS_OK;
	}
	return status == STATUS_OK ? identity_lock(&agent->identity, &agent->lock_fd, why, capacity) : status;
}

static enum status open_journal(struct agent *agent, char *why, size_t capacity)
{
	char path[4096];
	char *sentence = NULL;
	snprintf(path, sizeof path, "%s/journal.db", agent->settings->state_directory);
	struct journal_settings settings = { .path = path, .retain_ms = JOURNAL_RETAIN_MS, .rows_limit = JOURNAL_ROWS };
	enum status status = journal_open(loop_base(agent->loop), &settings, &agent->journal, &sentence);
	if (status != STATUS_OK)
		snprintf(why, capacity, "%s", sentence ? sentence : "the journal cannot be opened");
	free(sentence);
	if (status != STATUS_OK)
		return status;
	agent->identity.boot = journal_number(agent->journal, "boot", 0) + 1;
	journal_set_number(agent->journal, "boot", agent->identity.boot);
	random_bytes(&agent->process, sizeof agent->process);
	agent->process &= (1u << PROCESS_BITS) - 1;
	int64_t floor = journal_number(agent->journal, "key_set_version", 0);
	if (floor > agent->identity.key_set_floor)
		agent->identity.key_set_floor = floor;
	if (agent->identity.enrolled && !journal_has_number(agent->journal, "key_set_version")) { /* each enrolment leaves it there: this is another journal */
		journal_set_number(agent->journal, REQUESTS_LOST_S, clock_now_ms() / 1000);
		journal_set_number(agent->journal, "key_set_version", agent->identity.key_set_floor);
	}
	return STATUS_OK;
}

static enum status open_limits(struct agent *agent)
{
	struct limits_settings settings;
	settings_limits(agent->settings, &settings);
	agent->limits = limits_new(&settings);
	if (!agent->limits)
		return STATUS_AGENT_INTERNAL;
	limits_on_latch(agent->limits, handle_latch, agent);
	for (enum latch latch = 0; latch < LATCHES; latch++)
		if (journal_number(agent->journal, agent_latch_numbers[latch], 0)) {
			limits_latch(agent->limits, latch);
			log_event(LOG_CRIT, "agent.latched", NULL, "%s are still stopped, as before the restart: find out why, then 'writebackctl resume'", latched[latch]);
		}
	return STATUS_OK;
}

static enum status open_realms(struct agent *agent, char *why, size_t capacity)
{
	char *sentence = NULL;
	enum status status = realms_new(loop_base(agent->loop), agent->settings, &agent->realms, &sentence);
	if (status != STATUS_OK)
		snprintf(why, capacity, "%s", sentence ? sentence : status_admin_text(status));
	free(sentence);
	if (status != STATUS_OK)
		return status;
	realms_on_health(agent->realms, handle_health, agent);
	agent->hello_directories = calloc(realms_count(agent->realms), sizeof *agent->hello_directories);
	for (size_t i = 0; agent->hello_directories && i < realms_count(agent->realms); i++) {
		const struct realm *realm = realms_at(agent->realms, i);
		agent->hello_directories[i] = (struct hello_directory){ (char *)realm_name(realm), (char *)directory_flavor(realm_directory(realm)) };
	}
	return agent->hello_directories ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static enum status open_requests(struct agent *agent)
{
	struct requests_world world = {
		.base = loop_base(agent->loop), .identity = &agent->identity, .journal = agent->journal, .limits = agent->limits, .realms = agent->realms,
		.settings = (const struct settings *const *)&agent->settings, .send = send_result, .ended = handle_ended, .arg = agent,
	};
	agent->requests = requests_new(&world);
	agent->outbox = outbox_new(world.base, agent->journal, &agent->identity, repeat_result, agent);
	if (!agent->requests || !agent->outbox)
		return STATUS_AGENT_INTERNAL;
	requests_restore(agent->requests);
	return STATUS_OK;
}

static enum status open_timers(struct agent *agent)
{
	struct event_base *base = loop_base(agent->loop);
	agent->minute = event_new(base, -1, EV_PERSIST, handle_minute, agent);
	agent->repeating = event_new(base, -1, EV_PERSIST, handle_repeating, agent);
	agent->forgetting = event_new(base, -1, EV_PERSIST, handle_forgetting, agent);
	agent->watching = event_new(base, -1, EV_PERSIST, handle_watching, agent);
	bool good = agent->minute && agent->repeating && agent->forgetting && agent->watching && event_add(agent->minute, &(struct timeval){ 60, 0 }) == 0
	            && event_add(agent->repeating, &(struct timeval){ REPEAT_S, 0 }) == 0 && event_add(agent->forgetting, &(struct timeval){ FORGET_S, 0 }) == 0
	            && event_add(agent->watching, &(struct timeval){ 0, 200000 }) == 0;
	return good ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

enum status agent_open(struct agent *agent, char *why, size_t capacity)
{
	agent->started_us = clock_monotonic_us();
	agent->config_ms = clock_now_ms();
	snprintf(why, capacity, "out of memory");
	enum status status = open_identity(agent, why, capacity);
	if (status == STATUS_OK)
		status = worker_new(loop_base(agent->loop), &agent->writer);
	agent->identity.store.worker = agent->writer;
	if (status == STATUS_OK)
		status = open_journal(agent, why, capacity);
	if (status == STATUS_OK)
		status = open_limits(agent);
	if (status == STATUS_OK)
		status = open_realms(agent, why, capacity);
	if (status == STATUS_OK)
		status = open_requests(agent);
	if (status == STATUS_OK)
		status = open_timers(agent);
	return status == STATUS_OK ? agent_open_rotation(agent) : status;
}

enum status agent_listen(struct agent *agent, int take_channel_fd, int take_control_fd)
{
	struct link_callbacks callbacks = { handle_up, handle_down, handle_frame, handle_attached, handle_detached, agent };
	enum status status = link_new(loop_base(agent->loop), take_channel_fd, &callbacks, &agent->link);
	/* Nobody would know it at the service. */
	if (status == STATUS_OK && !agent->identity.enrolled)
		link_hold(agent->link, STATUS_LOCAL_NOT_ENROLLED, agent->identity_fault[0] ? "writebackd is enrolled no more: 'writebackctl status' says why" : "writebackd is not enrolled: writebackctl enroll");
	if (status == STATUS_OK)
		status = control_new(loop_base(agent->loop), take_control_fd, agent_commands, agent, &agent->control);
	return status;
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

void agent_close(struct agent *agent)
{
	/* What is being written ends first, and who waits for it is still there. */
	agent->identity.store.worker = NULL;
	worker_free(agent->writer);
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		session_free(agent->sessions[i]);
	memset(agent->sessions, 0, sizeof agent->sessions);
	/* The order that request.h asks for. */
	if (agent->requests)
		requests_close(agent->requests);
	realms_free(agent->realms);
	control_free(agent->control); /* answers of `check` come until here */
	if (agent->journal)
		journal_close(agent->journal);
	requests_free(agent->requests);
	outbox_free(agent->outbox);
	link_free(agent->link);
	if (agent->limits)
		limits_free(agent->limits);
	agent_close_rotation(agent);
	free_event(agent->minute);
	free_event(agent->repeating);
	free_event(agent->forgetting);
	free_event(agent->watching);
	free(agent->hello_directories);
	free(agent->restart_told);
	enrolment_clear(&agent->enrolment);
	identity_clear(&agent->identity);
	if (agent->lock_fd >= 0)
		close(agent->lock_fd);
	if (agent->settings != agent->first_settings) {
		settings_clear(agent->settings);
		free(agent->settings);
	}
}
