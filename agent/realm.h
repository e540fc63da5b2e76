/* realm: one configured directory together with its scope: whom the premises allow to be reset in it. Groups that the configuration names by DN are
 * resolved to SIDs at the start and every ten minutes; until then they match as scope.h says. On the loop's thread. */
#ifndef AGENT_REALM_H
#define AGENT_REALM_H

#include "agent/directory/directory.h"
#include "agent/gate/scope.h"
#include "agent/settings.h"

struct realms;
struct realm;

/* `settings` are borrowed for the life of the realms. A directory that cannot be set up (its credential is missing) fails the whole with a sentence. */
enum status realms_new(struct event_base *base, const struct settings *settings, struct realms **ret_realms, char **ret_why) MUST_USE;
void realms_free(struct realms *realms);
/* Takes the scopes of `settings`, whose directories have the same names in the same order (else false and nothing changes). Borrowed until the next call. */
bool realms_rescope(struct realms *realms, const struct settings *settings);
/* Called on the loop whenever a directory's health changes. */
void realms_on_health(struct realms *realms, void (*changed)(void *arg), void *arg);

size_t realms_count(const struct realms *realms);
struct realm *realms_at(const struct realms *realms, size_t index);
struct realm *realms_find(const struct realms *realms, const char *name);
/* The one realm for a user who is named so; `domain` NULL: not known. user.not_found where none, or not the one that is called
 * `name` (NULL: any), serves it, user.ambiguous where several do. */
enum status realms_choose(const struct realms *realms, const char *name, const char *domain, struct realm **ret_realm) MUST_USE;

const char *realm_name(const struct realm *realm);
struct directory *realm_directory(const struct realm *realm);
const struct settings_directory *realm_settings(const struct realm *realm);
/* Valid until the loop turns. */
const struct scope *realm_scope(struct realm *realm);

#endif
