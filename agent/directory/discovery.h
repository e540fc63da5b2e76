/* discovery: the servers of a directory by DNS: SRV records (MS-ADTS 6.3.2.3; RFC 2782), looked up at the start, when their time to live is over, and when no server is up.
 * An answer adds servers and says which of them it names no more; an empty answer, a failure or silence changes nothing. Internal. */
#ifndef AGENT_DIRECTORY_DISCOVERY_H
#define AGENT_DIRECTORY_DISCOVERY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct directory;
struct discovery;

/* Begins the first round. */
enum status discovery_new(struct directory *directory, struct discovery **ret_discovery) MUST_USE;
void discovery_free(struct discovery *discovery);
/* Looks them up again, unless that is under way or was begun within the last second. */
void discovery_refresh(struct discovery *discovery);
bool discovery_is_running(const struct discovery *discovery);
/* The first round, which may yet bring the first servers, has not ended. */
bool discovery_is_first(const struct discovery *discovery);
/* Each record asked for and how the last lookup of it ended: "_ldap._tcp.dc._msdcs.corp.example.com: dc1.corp.example.com, dc2.corp.example.com (valid for 600 s)". `good`: it named
 * a server, or there is no such record while another one named some. */
void discovery_each(const struct discovery *discovery, void (*visit)(const char *text, bool good, void *arg), void *arg);
/* Why there is no server. */
void discovery_describe(const struct discovery *discovery, char *text, size_t capacity);

#endif
