/* What hub.c (agents), session.c (their channels), admission.c (hellos) and rekey.c (their keys) share. */
#ifndef SERVICE_HUB_INTERNAL_H
#define SERVICE_HUB_INTERNAL_H

#include "proto/websocket.h"
#include "service/hub.h"

#define SESSION_ACKS 64
#define SESSION_MESSAGES 4096.0 /* at once: all that an agent may have to repeat after a long cut */

/* A good hello whose boot and instance are on their way to the store. Freed when they are there; agents are freed behind the store. */
struct admission {
	struct store_agent_change store;
	struct session *session;        /* NULL once it was freed */
	struct agent *agent;
	struct hello hello;
	char signing_kid[JOSE_KID_SIZE]; /* of the key that signed it */
};

struct session {
	struct session *next;
	struct hub *hub;
	struct upgraded *connection;
	struct websocket *websocket;
	struct event *greeting;         /* its deadline */
	int64_t challenged_us;
	struct jose_keys *former;       /* the key that greeted, where it was replaced on this channel: good until the first message by the new one */
	struct admission *admission;    /* from a good hello to the welcome */
	struct agent *claimed;          /* whom its hello has named, proven or not: for the log alone */
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
	struct turned_away turned_away; /* channels that no agent is named for */
	unsigned ungreeted;             /* of those, the ones that wait for a good hello */
	bool draining;
};

/* The channel starts to close; its agent loses it at once. */
void session_end(struct session *session, unsigned close_code, const char *reason);
void session_free(struct session *session);
void session_leave_ungreeted(struct session *session);
/* admission.c: a hello that is good in itself: the welcome, once it is recorded, or the end of the session. */
void session_admit(struct session *session, struct agent *agent, struct hello *take_hello);
bool session_is_clone(const struct agent_row *seen, const struct hello *newcomer);
/* Its challenge is from before the last good hello of the same instance: it proves no clone. */
bool session_is_late(const struct session *session, const struct agent *agent, const struct hello *hello);
/* Closes all that this agent has. */
void session_refuse_clone(struct session *session, struct agent *agent);
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
