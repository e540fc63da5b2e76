/* request: what happens to a request, from a verified frame to a recorded and signed result. request.c is the table of contents: the stages in their order;
 * request_outcome.c is the one tail by which every request leaves; request_settle.c finds out about writes whose answer was lost,
 * request_second.c writes the same once more on another server meanwhile.
 *
 * On the loop's thread. Holds every request under way; nothing else does. */
#ifndef AGENT_REQUEST_H
#define AGENT_REQUEST_H

#include <event2/event.h>

#include "agent/gate/limits.h"
#include "agent/identity.h"
#include "agent/journal/journal.h"
#include "agent/realm.h"
#include "agent/settings.h"

struct requests;

/* Borrowed. */
struct requests_world {
	struct event_base *base;
	const struct identity *identity;
	struct journal *journal;
	struct limits *limits;
	struct realms *realms;
	const struct settings *const *settings; /* as last loaded */
	/* A result's payload, to be signed and sent on this endpoint, or another where it talks no more. */
	void (*send)(uint8_t endpoint, const char *payload, void *arg);
	/* A request has left. */
	void (*ended)(void *arg);
	void *arg;
};

struct requests *requests_new(const struct requests_world *world);
/* Order of the end: requests_close, realms_free, journal_close, requests_free: directories and journal call back for the last time into requests. */
void requests_close(struct requests *requests);
void requests_free(struct requests *requests);

/* A request whose signature is good. `payload` is not parsed yet. */
void requests_handle(struct requests *requests, uint8_t endpoint, struct bytes payload, struct bytes frame, int64_t started_us);
/* There is a channel: the service delivers again what had no result. */
void requests_channel_ready(struct requests *requests);
/* The channel to this endpoint is lost. A request with `failover_after` that came over it begins no write until it is delivered again. */
void requests_channel_lost(struct requests *requests, uint8_t endpoint);
/* A frame that cannot be verified: answered with its SHA-256, at most ten a second; agent.internal where it was the agent that failed (JOSE_INTERNAL). One that was verified
 * before and taken in, by a key that is believed no more, has its recorded outcome for an answer, or none. */
void requests_handle_unverified(struct requests *requests, uint8_t endpoint, struct bytes frame, enum jose_reason reason);
/* The journal's number that holds when the latch was opened last, milliseconds since 1970: writes before it do not count any more. */
#define REQUESTS_RESUMED_MS "resumed_ms"
/* Its number of when a journal was begun though there had been another, which was lost: seconds since 1970. What was issued until then may have been applied. */
#define REQUESTS_LOST_S "lost_s"
/* At the start: what the journal holds of writes counts for the limits, and intents without an outcome are settled. */
void requests_restore(struct requests *requests);

/* Under way; settling ones are counted apart. */
unsigned requests_running(const struct requests *requests);
unsigned requests_settling(const struct requests *requests);
/* Ended with this code since the start. */
uint64_t requests_count(const struct requests *requests, enum status code);
/* When the last one ended, milliseconds since 1970; 0: none yet. */
int64_t requests_last_ms(const struct requests *requests);

#endif
