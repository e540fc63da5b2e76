/* From a good hello to the welcome: what comes in between, while the store records it, keeps the agent out as if it had been there before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/hub_internal.h"

#define ISSUER "https://reset.example.test"
#define AGENT "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
#define OTHER "bee16f7b-e397-47cb-b09d-19fe6a9b229f"
#define NOW 1790000000

/* The store: nothing is done before finish(). Behind the channel: what it was told. */
static struct {
	struct { database_done done; void *arg; } waiting[8];
	unsigned count;
	unsigned closed;               /* with this code; 0: not */
	unsigned welcomed;
} played;

enum status __wrap_database_submit(struct database *database, database_job job, database_done done, void *arg);
enum status __wrap_database_submit(struct database *database, database_job job, database_done done, void *arg)
{
	assert_true(played.count < 8);
	played.waiting[played.count].done = done;
	played.waiting[played.count++].arg = arg;
	return STATUS_OK;
}

static void finish(enum status status)
{
	for (unsigned i = 0; i < played.count; i++)
		played.waiting[i].done(status, played.waiting[i].arg);
	played.count = 0;
}

void __wrap_session_end(struct session *session, unsigned close_code, const char *reason);
void __wrap_session_end(struct session *session, unsigned close_code, const char *reason)
{
	if (!session->closing)
		played.closed = close_code;
	session->closing = true;
}

enum status __wrap_session_send_signed(struct session *session, const char *typ, char *take_payload);
enum status __wrap_session_send_signed(struct session *session, const char *typ, char *take_payload)
{
	played.welcomed += strcmp(typ, TYP_WELCOME) == 0;
	free(take_payload);
	return STATUS_OK;
}

const char *__wrap_upgraded_peer(const struct upgraded *upgraded);
const char *__wrap_upgraded_peer(const struct upgraded *upgraded) { return "192.0.2.1"; }

struct scene {
	struct settings settings;
	struct event_base *base;
	struct hub *hub;
	struct agent *agent, *other;
	struct session session, others;
};

static void ignore_ready(struct agent *agent, void *arg) { }

static char *public_jwk(enum jose_use use)
{
	struct jose_key *key = NULL;
	assert_int_equal(jose_key_generate(use, &key), STATUS_OK);
	json_t *jwk = jose_key_public_jwk(key);
	char *text = json_dumps(jwk, JSON_COMPACT);
	json_decref(jwk);
	jose_key_free(key);
	return text;
}

static struct agent *enroll(struct hub *hub, const char *agent_id)
{
	struct agent_row row = { .name = strdup(agent_id), .signing_key = public_jwk(JOSE_SIGN), .decryption_key = public_jwk(JOSE_DECRYPT), .enrolled_at = NOW };
	memcpy(row.agent_id, agent_id, UUID_SIZE);
	assert_true(hub_update(hub, &(struct agent_rows){ &row, 1 }));
	agent_row_clear(&row);
	return hub_find(hub, agent_id);
}

static void ignore_deadline(evutil_socket_t fd, short what, void *arg) { }

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	memset(&played, 0, sizeof played);
	scene->settings = (struct settings){ .issuer = (char *)ISSUER, .max_agents = 1 };
	scene->base = event_base_new();
	assert_int_equal(hub_new(scene->base, &scene->settings, NULL, NULL, &scene->hub), STATUS_OK);
	hub_set_callbacks(scene->hub, &(struct hub_callbacks){ .ready = ignore_ready });
	scene->agent = enroll(scene->hub, AGENT);
	scene->other = enroll(scene->hub, OTHER);
	scene->session.hub = scene->others.hub = scene->hub;
	scene->session.greeting = evtimer_new(scene->base, ignore_deadline, NULL);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	finish(STATUS_OK);
	event_free(scene->session.greeting);
	hub_free(scene->hub);
	event_base_free(scene->base);
	free(scene);
	return 0;
}

/* By an instance that the store does not know. */
static void greet(struct scene *scene)
{
	struct hello hello = { .agent_nonce = strdup("nonce"), .instance_id = strdup("0d9619ff-8b86-4d01-b42d-00c04fc964ff"), .boot = 1, .decryption_key = strdup(jose_key_id(scene->agent->decryption)) };
	session_admit(&scene->session, scene->agent, &hello);
	hello_clear(&hello);
}

static void assert_welcome(const struct scene *scene)
{
	assert_int_equal(played.closed, 0);
	assert_int_equal(played.welcomed, 1);
	assert_ptr_equal(scene->agent->session, &scene->session);
}

static void assert_closed(const struct scene *scene, unsigned code)
{
	assert_int_equal(played.closed, code);
	assert_int_equal(played.welcomed, 0);
	assert_null(scene->agent->session);
}

static void let_in_once_it_is_recorded(void **state)
{
	struct scene *scene = *state;
	greet(scene);
	assert_int_equal(played.welcomed, 0);
	finish(STATUS_OK);
	assert_welcome(scene);
}

static void not_let_in_where_it_is_not_recorded(void **state)
{
	greet(*state);
	finish(STATUS_AGENT_JOURNAL);
	assert_closed(*state, 1013);
}

static void revoke(struct scene *scene) { hub_revoke(scene->hub, AGENT, NOW); }
static void revoke_other(struct scene *scene) { hub_revoke(scene->hub, OTHER, NOW); }
static void see_clone(struct scene *scene) { hub_remember_clone(scene->hub, scene->agent); }
static void stop(struct scene *scene) { hub_drain(scene->hub, "the service stops"); }
static void replace_keys(struct scene *scene) { scene->agent->signing_kid[0] ^= 1; }
static void fill(struct scene *scene) { scene->other->session = &scene->others; }

/* Code 0: nothing that concerns this agent. */
static void meanwhile(struct scene *scene, void (*happen)(struct scene *scene), unsigned code)
{
	greet(scene);
	assert_int_equal(played.count, 1);
	happen(scene);
	finish(STATUS_OK);
	if (code == 0)
		assert_welcome(scene);
	else
		assert_closed(scene, code);
}

static void revoked_meanwhile(void **state) { meanwhile(*state, revoke, 4001); }
static void another_is_revoked_meanwhile(void **state) { meanwhile(*state, revoke_other, 0); }
static void clone_seen_meanwhile(void **state) { meanwhile(*state, see_clone, 4003); }
static void stops_meanwhile(void **state) { meanwhile(*state, stop, 1001); }
static void keys_replaced_meanwhile(void **state) { meanwhile(*state, replace_keys, 1012); }
static void full_meanwhile(void **state) { meanwhile(*state, fill, 1013); }

int main(void)
{
#define ROW(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		ROW(let_in_once_it_is_recorded), ROW(not_let_in_where_it_is_not_recorded), ROW(revoked_meanwhile), ROW(another_is_revoked_meanwhile), ROW(clone_seen_meanwhile),
		ROW(stops_meanwhile), ROW(keys_replaced_meanwhile), ROW(full_meanwhile),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
