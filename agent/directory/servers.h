/* servers: the servers of a directory, in the order of preference: who names them, which of them is up, silent, just back, or no longer named; and which one is next. Internal. */
#ifndef AGENT_DIRECTORY_SERVERS_H
#define AGENT_DIRECTORY_SERVERS_H

#include "agent/directory/connection.h"

enum { SERVERS_MAX = 64 };
/* Who names a server; the first that does decides its place. */
enum server_origin { ORIGIN_LISTED, ORIGIN_SITE, ORIGIN_LDAPS, ORIGIN_DOMAIN, ORIGIN_PDC, ORIGINS };

struct server {
	char *name;                    /* as configured or by DNS: "host", "host:port" */
	uint32_t random;               /* its share of the choice by weight: kept, so that it keeps its place */
	struct server_place {
		bool named;
		unsigned priority;
		double key;
	} places[ORIGINS];
	bool vanished;                 /* DNS names it no more: gone as soon as it is idle */
	struct connection **connections; /* settings->connections of them; the first is always kept up, the others when there is work */
	unsigned slots;
	bool was_up;
	int64_t up_since_us;
	unsigned losses;               /* in short order: each doubles the time that it must be up before it is preferred again */
	int64_t doubted_us;            /* when a connection of it was given up for its silence */
};

/* The one of that name; NULL: none. */
struct server *servers_find(const struct directory *directory, const char *name);
/* A new one at the end, not connected yet. local.input: not a server's name; agent.overloaded: there are SERVERS_MAX. */
enum status servers_add(struct directory *directory, const char *name, struct server **ret_server) MUST_USE;
/* Where there are SERVERS_MAX: one that `origin` alone named goes for those that it names now, unless it is up, in use or spared. True: there is room for one more. */
bool servers_make_room(struct directory *directory, enum server_origin origin, bool (*spared)(const char *name, const void *arg), const void *arg);
void server_start(struct server *server);
/* By preference: the PDC emulator where it is wanted, then by origin, priority and weight. Never while a loop goes over them. */
void servers_sort(struct directory *directory);
/* Those that nobody names any more and nobody uses, while another one is up. From the loop's top level only. True: some wait. */
bool servers_retire(struct directory *directory);
void servers_stop(struct directory *directory);
void servers_free(struct directory *directory);

/* A connection came up or went down: the server's state, with a line in the log where it changed. */
void servers_note(struct directory *directory, struct connection *connection);
/* Nothing has come over this connection for too long: its server is asked whether it lives, within so long, and until it is heard new work goes elsewhere. */
void servers_doubt(struct directory *directory, const struct connection *connection, int64_t probe_ms);
bool server_usable(const struct server *server);
/* Up, but asked only where no better one is: it owes an answer; it has not been back for long. */
bool server_is_silent(const struct server *server, int64_t now_us);
bool server_is_settling(const struct server *server, int64_t now_us);
bool server_is_pdc(const struct server *server);
/* Which would be asked next; NULL: none is up. `avoid`: only where no other is up; `exclude`: never; NULL: none. */
struct server *servers_next(const struct directory *directory, const char *prefer, const char *avoid, const char *exclude);
/* The server whose state needs an administrator most; NULL: there is none. */
const struct connection *servers_worst(const struct directory *directory);

#endif
