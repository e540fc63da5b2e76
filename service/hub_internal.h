/* What hub.c (agents) and session.c (their channels) share. */
#ifndef SERVICE_HUB_INTERNAL_H
#define SERVICE_HUB_INTERNAL_H

#include "proto/websocket.h"
#include "service/hub.h"

#define SESSION_ACKS 64

struct session {
	struct session *next;
	struct hub *hub;
	struct upgraded *connection;
	struct websocket *websocket;
	struct event *greeting;         /* its deadline */
	struct jose_keys *former;       /* the key that greeted, where it was replaced on this channel: good until the first message by the new one */
	struct agent *agent;            /* from the welcome until the session ends or is superseded */
	char nonce[NONCE_SIZE];
	char id[UUID_SIZE];
	char acks[SESSION_ACKS][UUID_SIZE]; /* durable results to be acknowledged when this turn of the loop ends */
	size_t ack_count;
	struct event *acknowledging;
	double tokens;                  /* messages still allowed now */
	int64_t refilled_us;
	unsigned ignored;               /* messages of a type not known here */
	bool ungreeted;                 /* counted there */
	bool closing;
	bool cutting;                   /* freed by `greeting` in a moment, not by its end */
};

struct hub {
	struct event_base *base;
	const struct settings *settings;
	const struct keys *keys;
	struct database *database;
	struct hub_callbacks callbacks;
	struct agent *agents;
	struct session *sessions;
	unsigned session_count;
	unsigned ungreeted;             /* of those, the ones that wait for a good hello */
	bool draining;
};

/* The channel starts to close; its agent loses it at once. */
void session_end(struct session *session, unsigned close_code, const char *reason);
void session_free(struct session *session);
/* Takes the payload; NULL is STATUS_AGENT_INTERNAL. */
enum status session_send_signed(struct session *session, const char *typ, char *take_payload) MUST_USE;
/* What has gathered. Nothing where there is nothing. */
void session_acknowledge(struct session *session);
/* rekey.c: wb-rekey+jwt, verified. Answers when it is durable, or ends the session with 1008. */
void session_take_rekey(struct session *session, struct bytes payload);
/* The former keys of the row; NULL when memory is out. */
struct jose_keys *rekey_former(const struct agent_row *row);
/* Whether a hello is signed by a key that this agent had before. */
bool rekey_is_former(const struct agent *agent, struct bytes hello, char **ret_payload, size_t *ret_size);
void hub_remember_seen(struct hub *hub, struct agent *agent);
/* No channel for this agent until a person releases it. */
void hub_remember_clone(struct hub *hub, struct agent *agent);

#endif
