/* server: what all connections share, and one operation on its way. One thread, one event loop. */
#ifndef MOCK_DIRECTORY_SERVER_H
#define MOCK_DIRECTORY_SERVER_H

#include <event2/event.h>
#include <openssl/ssl.h>
#include <sys/queue.h>

#include "attributes.h"
#include "faults.h"
#include "forest.h"
#include "message.h"

struct connection;
struct statistics {
	unsigned long connections, binds, searches, modifies, extended, others, password_writes, faults;
};
struct server {
	struct event_base *base;
	struct forest *forest;
	SSL_CTX *tls;
	struct faults faults;
	struct statistics statistics;
	struct arena arena;        /* of the operation at hand */
	bool policy_hints, log, require_signing;
	struct state *state;       /* NULL: nothing is kept */
	LIST_HEAD(, connection) connections;
};

/* The SD flags control's value; all four parts without it. */
unsigned controls_descriptor_parts(const struct request *request);

struct operation {
	struct server *server;
	struct request *request;
	struct object **bound;     /* the connection's; bind changes it */
	bool encrypted;
	struct evbuffer *out;
	struct object *target;     /* whom it concerned, for the log */
	int result;                /* for the log */
};
static inline struct view operation_view(const struct operation *operation)
{
	struct server *server = operation->server;
	return (struct view){ .forest = server->forest, .who = *operation->bound, .arena = &server->arena, .now = forest_now(server->forest),
		.descriptor_parts = controls_descriptor_parts(operation->request) };
}

/* Each writes its answers to operation->out. */
void bind_perform(struct operation *operation);
void search_perform(struct operation *operation);
void modify_perform(struct operation *operation);
void extended_perform(struct operation *operation);

/* The object that a search would return, or one that it starts from, is this: what a fault's user= means. */
bool search_concerns(struct operation *operation, struct object *object);
/* rootDSE: answers the search of "" with base scope. */
void root_dse_perform(struct operation *operation);

/* The checks before any operation: false after having set the answer (critical control unknown). `ret_hints`: policy hints with flag 1. */
bool controls_check(const struct operation *operation, struct answer *answer, bool *ret_hints);
const struct control *controls_find(const struct request *request, const char *oid);
extern const char *const controls_supported[]; /* NULL-terminated */
bool controls_offered(const struct server *server, const char *oid);

/* The answer to whatever needs a bind first. */
void answer_unbound(struct answer *answer);
/* No such object, with the nearest existing superior; bad syntax; a name outside the domain is a referral. The texts live in the arena. */
void answer_no_object(struct operation *operation, struct value name, bool bad, struct answer *answer);
void operation_answer(struct operation *operation, const struct answer *answer);
/* Counts a bad password, locks at the threshold. */
void account_bad_password(struct forest *forest, struct object *object);
/* Does the password fit? Nothing is counted. */
bool account_verify(const struct account *account, struct value password);

#endif
