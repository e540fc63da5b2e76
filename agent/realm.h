/* realm: one configured directory together with its scope: whom the premises allow to be reset in it. Every name in it is looked up at
 * the start and every ten minutes, for groups to be known by their SIDs and for a typo to be seen; until then it matches as scope.h says. On the loop's thread. */
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
/* Takes the scopes of `settings`, which are borrowed until the next call. local.config: its directories have not the same names in the same order; agent.internal: out of memory. With either nothing
 * has changed. */
enum status realms_rescope(struct realms *realms, const struct settings *settings) MUST_USE;
/* Called on the loop whenever a directory's health changes. */
void realms_on_health(struct realms *realms, void (*changed)(void *arg), void *arg);

size_t realms_count(const struct realms *realms);
struct realm *realms_at(const struct realms *realms, size_t index);
struct realm *realms_find(const struct realms *realms, const char *name);
/* The one realm for a user who is named so; `domain` (UPN suffix, DNS or NetBIOS name) NULL: not known. Where several are configured: the one whose `domains` hold it; else, of those
 * without `domains`, the one that goes by that name itself; else the only one without `domains`. user.not_found where none, or not the one that is called `name` (NULL: any), serves it,
 * user.ambiguous where two claim it alike, directory.unavailable where it may belong to one that could not be asked yet. */
enum status realms_choose(const struct realms *realms, const char *name, const char *domain, struct realm **ret_realm) MUST_USE;

/* What the directory says of base_dn and of each name in the scope. */
struct realm_name {
	const char *key, *name;        /* "scope.bases" and what is written there */
	bool asked, good;              /* good: it is there; not asked: the directory could not be asked yet */
	struct sid sid;                /* size 0: not known, or it has none */
	char text[640];                /* a sentence for an administrator */
};
void realm_each_name(const struct realm *realm, void (*visit)(const struct realm_name *name, void *arg), void *arg);
/* scope.exempt_administrators as written, with the names of well-known SIDs; "" where nothing stands there. */
void realm_describe_exemptions(const struct realm *realm, char *text, size_t capacity);
/* Looks all of them up again; `done` on the loop. False: out of memory. */
bool realm_refresh(struct realm *realm, void (*done)(void *arg), void *arg);
/* False with a sentence where one of them is not there, or not looked up yet. */
bool realm_names_good(const struct realm *realm, char *why, size_t capacity);
/* False while a name that decides who is in scope was never looked up: nobody can be judged yet, which is no refusal. */
bool realm_scope_known(const struct realm *realm);

/* By what a user's guid is looked for here. */
enum locate_by realm_identity(const struct realm *realm);
const char *realm_name(const struct realm *realm);
struct directory *realm_directory(const struct realm *realm);
const struct settings_directory *realm_settings(const struct realm *realm);
/* Valid until the loop turns. */
const struct scope *realm_scope(struct realm *realm);

#endif
