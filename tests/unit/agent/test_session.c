/* The greeting with a scripted service: right order, wrong order, wrong nonce, wrong key, too late; and who may say what afterwards. */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/session.h"
#include "tests/unit/proto/jose_forge.h"

#define NOW INT64_C(1790000000)
#define ISSUER "https://reset.example.org"
#define AGENT "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
#define SESSION "0b7f3a52-8f36-4c5e-9a55-2f1d3ed3c001"

struct scene {
	struct event_base *base;
	struct jose_key *root, *signing, *stranger;
	struct identity identity;
	struct session *session;
	char sent[4][4096];
	unsigned sent_count, requests, unverified, changes, key_sets;
	unsigned close_code;
	enum jose_reason reason;
	char acknowledged[64], rekeyed[64];
	unsigned next_welcomed;
};

static enum status keep_frame(struct session *session, struct bytes frame, void *arg)
{
	struct scene *scene = arg;
	assert_true(scene->sent_count < 4 && frame.size < sizeof scene->sent[0]);
	memcpy(scene->sent[scene->sent_count++], frame.data, frame.size);
	return STATUS_OK;
}

static void keep_close(struct session *session, unsigned close_code, const char *reason, void *arg)
{
	((struct scene *)arg)->close_code = close_code;
}

static void tell_self(struct session_self *ret_self, void *arg)
{
	static const struct hello_directory directories[] = { { (char *)"corp", (char *)"active-directory" } };
	*ret_self = (struct session_self){ directories, 1, 1u << OP_RESET | 1u << OP_UNLOCK, 256, 7 };
}

static void count_change(struct session *session, void *arg) { ((struct scene *)arg)->changes++; }
static void count_request(struct session *session, struct bytes payload, struct bytes frame, int64_t started_us, void *arg) { ((struct scene *)arg)->requests++; }
static void count_key_set(struct session *session, void *arg) { ((struct scene *)arg)->key_sets++; }

static void count_next_welcomed(struct session *session, void *arg) { ((struct scene *)arg)->next_welcomed++; }

static void keep_rekeyed(struct session *session, const struct rekeyed *rekeyed, void *arg)
{
	snprintf(((struct scene *)arg)->rekeyed, 64, "%s", rekeyed->signing_key);
}

static void count_unverified(struct session *session, struct bytes frame, enum jose_reason reason, void *arg)
{
	((struct scene *)arg)->unverified++;
	((struct scene *)arg)->reason = reason;
}

static void keep_ack(struct session *session, const char *request_id, void *arg)
{
	snprintf(((struct scene *)arg)->acknowledged, 64, "%s", request_id);
}

static void keep_status(enum status status, void *arg)
{
	*(enum status *)arg = status;
}

static enum status begin(struct identity *identity, int64_t now_s)
{
	enum status done = STATUS_AGENT_INTERNAL, status = identity_begin_rotation(identity, now_s, keep_status, &done);
	return status == STATUS_OK ? done : status;
}

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	scene->base = event_base_new();
	assert_int_equal(jose_key_generate(JOSE_SIGN, &scene->root), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &scene->signing), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &scene->stranger), STATUS_OK);
	struct identity *identity = &scene->identity;
	*identity = (struct identity){ .enrolled = true, .issuer = strdup(ISSUER) };
	strcpy(identity->agent_id, AGENT);
	uuid_random(identity->instance_id);
	assert_int_equal(jose_key_public(scene->root, &identity->root), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &identity->signing), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &identity->decryption), STATUS_OK);
	struct session_callbacks callbacks = { keep_frame, keep_close, tell_self, count_change, count_request, count_unverified, keep_ack, count_key_set, keep_rekeyed, count_next_welcomed, scene };
	scene->session = session_new(scene->base, 0, identity, &callbacks);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	session_free(scene->session);
	identity_clear(&scene->identity);
	jose_key_free(scene->root);
	jose_key_free(scene->signing);
	jose_key_free(scene->stranger);
	event_base_free(scene->base);
	free(scene);
	return 0;
}

/* What the service says ----------------------------------------------------------------------------------------------------------------- */

static void say(struct scene *scene, struct jose_key *key, const char *typ, char *take_payload)
{
	char *jws = NULL;
	assert_non_null(take_payload);
	assert_int_equal(jose_sign(key, typ, bytes_of_string(take_payload), &jws), STATUS_OK);
	session_frame(scene->session, bytes_of_string(jws), NOW);
	free(jws);
	free(take_payload);
}

static void say_keys_of(struct scene *scene, struct jose_key *by, int64_t version, int64_t exp)
{
	struct jose_key *const keys[] = { scene->signing };
	say(scene, by, TYP_KEYS, key_set_build(ISSUER, NOW, exp, version, keys, 1));
}

static void say_keys(struct scene *scene)
{
	say_keys_of(scene, scene->root, 3, NOW + 86400);
}

static void say_challenge(struct scene *scene, struct jose_key *key, const char *issuer)
{
	char nonce[NONCE_SIZE];
	nonce_random(nonce);
	struct challenge challenge = { (char *)issuer, NOW, nonce };
	say(scene, key, TYP_CHALLENGE, challenge_build(&challenge));
}

/* The hello that the agent sent last, verified with its key. */
static void read_hello(struct scene *scene, struct hello *ret_hello)
{
	struct jose_keys *keys = jose_keys_new();
	struct jose_key *public = NULL;
	static const char *const typs[] = { TYP_HELLO, NULL };
	char *payload = NULL;
	size_t size;
	const char *member;
	assert_true(scene->sent_count > 0);
	assert_int_equal(jose_key_public(scene->identity.signing, &public), STATUS_OK);
	assert_int_equal(jose_keys_add(keys, public), STATUS_OK);
	assert_int_equal(jose_verify(bytes_of_string(scene->sent[scene->sent_count - 1]), typs, keys, &payload, &size, NULL, NULL), JOSE_OK);
	assert_int_equal(hello_parse(bytes_of(payload, size), ret_hello, &member), STATUS_OK);
	free(payload);
	jose_keys_free(keys);
}

static void say_welcome(struct scene *scene, struct jose_key *key, const char *nonce, const char *agent_id)
{
	struct welcome welcome = { (char *)ISSUER, (char *)agent_id, NOW + 2, (char *)nonce, (char *)SESSION, 65536 };
	say(scene, key, TYP_WELCOME, welcome_build(&welcome));
}

static void greet_to_hello(struct scene *scene)
{
	session_up(scene->session);
	/* A key set that is signed anew has other bytes, so it needs a version of its own. */
	say_keys_of(scene, scene->root, 3 + scene->key_sets, NOW + 86400);
	say_challenge(scene, scene->signing, ISSUER);
	assert_int_equal(session_state(scene->session), SESSION_WELCOME);
}

static void greet(struct scene *scene)
{
	struct hello hello = { 0 };
	greet_to_hello(scene);
	read_hello(scene, &hello);
	say_welcome(scene, scene->signing, hello.agent_nonce, AGENT);
	hello_clear(&hello);
	assert_int_equal(session_state(scene->session), SESSION_READY);
}

static void assert_refused(struct scene *scene)
{
	assert_int_equal(session_state(scene->session), SESSION_DOWN);
	assert_int_equal(scene->close_code, 1008);
}

/* The greeting -------------------------------------------------------------------------------------------------------------------------- */

static void test_right_order(void **state)
{
	struct scene *scene = *state;
	struct hello hello = { 0 };
	greet(scene);
	read_hello(scene, &hello);
	assert_string_equal(hello.agent_id, AGENT);
	assert_string_equal(hello.issuer, ISSUER);
	assert_int_equal(hello.boot, 7);
	assert_int_equal(hello.directory_count, 1);
	assert_string_equal(hello.decryption_key, jose_key_id(scene->identity.decryption));
	assert_int_equal(scene->sent_count, 1);
	assert_int_equal(scene->key_sets, 1);
	assert_int_equal(session_clock_difference_s(scene->session), 2);
	assert_int_equal(scene->close_code, 0);
	hello_clear(&hello);
}

static void test_frame_while_down(void **state)
{
	struct scene *scene = *state;
	say_keys(scene);
	assert_int_equal(session_state(scene->session), SESSION_DOWN);
	assert_int_equal(scene->close_code, 0);
}

static void test_not_enrolled(void **state)
{
	struct scene *scene = *state;
	scene->identity.enrolled = false;
	session_up(scene->session);
	assert_int_equal(session_state(scene->session), SESSION_DOWN);
	assert_int_equal(scene->close_code, 1001);
}

static void test_wrong_order(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_challenge(scene, scene->signing, ISSUER);
	assert_refused(scene);
	assert_int_equal(scene->sent_count, 0);
}

static void test_request_before_welcome(void **state)
{
	struct scene *scene = *state;
	greet_to_hello(scene);
	say(scene, scene->signing, TYP_REQUEST, strdup("{}"));
	assert_refused(scene);
	assert_int_equal(scene->requests, 0);
}

static void test_key_set_by_another_root(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_keys_of(scene, scene->stranger, 3, NOW + 86400);
	assert_refused(scene);
}

static void test_expired_key_set(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_keys_of(scene, scene->root, 3, NOW - 1);
	assert_refused(scene);
}

static void test_older_key_set(void **state)
{
	struct scene *scene = *state;
	scene->identity.key_set_floor = 4;
	session_up(scene->session);
	say_keys(scene);
	assert_refused(scene);
}

static void test_same_version_with_other_bytes(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_keys(scene);
	session_down(scene->session);
	session_up(scene->session);
	say_keys_of(scene, scene->root, 3, NOW + 86401);
	assert_refused(scene);
}

/* Whoever owns the channel for a moment can show the key set with its other signature, before the true one or behind it: that keeps nobody out. */
static void test_same_key_set_with_the_other_signature(void **state)
{
	struct scene *scene = *state;
	struct jose_key *const keys[] = { scene->signing };
	AUTO_FREE char *payload = key_set_build(ISSUER, NOW, NOW + 86400, 3, keys, 1);
	AUTO_FREE char *jws = NULL;
	assert_int_equal(jose_sign(scene->root, TYP_KEYS, bytes_of_string(payload), &jws), STATUS_OK);
	AUTO_FREE char *twin = forge_twin(jws);
	const char *const shown[] = { twin, jws, twin };
	for (unsigned i = 0; i < 3; i++) {
		session_up(scene->session);
		session_frame(scene->session, bytes_of_string(shown[i]), NOW);
		assert_int_equal(scene->close_code, 0);
		assert_int_equal(session_state(scene->session), SESSION_CHALLENGE);
		assert_int_equal(scene->key_sets, 1);
		session_down(scene->session);
	}
}

static void test_challenge_by_unknown_key(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_keys(scene);
	say_challenge(scene, scene->stranger, ISSUER);
	assert_refused(scene);
	assert_int_equal(scene->sent_count, 0);
}

static void test_challenge_by_root(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_keys(scene);
	say_challenge(scene, scene->root, ISSUER);
	assert_refused(scene);
}

static void test_challenge_of_another_issuer(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_keys(scene);
	say_challenge(scene, scene->signing, "https://reset.example.net");
	assert_refused(scene);
}

static void test_welcome_with_another_nonce(void **state)
{
	struct scene *scene = *state;
	char nonce[NONCE_SIZE];
	greet_to_hello(scene);
	nonce_random(nonce);
	say_welcome(scene, scene->signing, nonce, AGENT);
	assert_refused(scene);
}

static void test_welcome_for_another_agent(void **state)
{
	struct scene *scene = *state;
	struct hello hello = { 0 };
	greet_to_hello(scene);
	read_hello(scene, &hello);
	say_welcome(scene, scene->signing, hello.agent_nonce, SESSION);
	hello_clear(&hello);
	assert_refused(scene);
}

/* A welcome recorded from the channel before: its nonce was the hello's of then. */
static void test_replayed_welcome(void **state)
{
	struct scene *scene = *state;
	struct hello first = { 0 };
	greet(scene);
	read_hello(scene, &first);
	session_down(scene->session);
	greet_to_hello(scene);
	say_welcome(scene, scene->signing, first.agent_nonce, AGENT);
	hello_clear(&first);
	assert_refused(scene);
}

static void test_garbage(void **state)
{
	struct scene *scene = *state;
	static const char *const frames[] = { "", ".", "..", "a.b.c", "e30.e30.e30", "{}", "not a JWS" };
	for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
		scene->close_code = 0;
		session_up(scene->session);
		session_frame(scene->session, bytes_of_string(frames[i]), NOW);
		assert_refused(scene);
	}
}

static int fire(const struct event_base *base, const struct event *event, void *arg)
{
	event_active((struct event *)event, EV_TIMEOUT, 0);
	return 1;
}

static void test_too_late(void **state)
{
	struct scene *scene = *state;
	session_up(scene->session);
	say_keys(scene);
	/* The deadline is the only event there is: made active instead of waited for. */
	assert_int_equal(event_base_foreach_event(scene->base, fire, NULL), 1);
	event_base_loop(scene->base, EVLOOP_NONBLOCK);
	assert_refused(scene);
	assert_int_equal(event_base_get_num_events(scene->base, EVENT_BASE_COUNT_ADDED), 0);
}

/* Afterwards ---------------------------------------------------------------------------------------------------------------------------- */

static void test_requests_after_welcome(void **state)
{
	struct scene *scene = *state;
	greet(scene);
	say(scene, scene->signing, TYP_REQUEST, strdup("{}"));
	assert_int_equal(scene->requests, 1);
	say(scene, scene->stranger, TYP_REQUEST, strdup("{}"));
	assert_int_equal(scene->requests, 1);
	assert_int_equal(scene->unverified, 1);
	assert_int_equal(scene->reason, JOSE_KID);
	assert_int_equal(session_state(scene->session), SESSION_READY);
}

static void test_what_only_agents_say(void **state)
{
	struct scene *scene = *state;
	greet(scene);
	say(scene, scene->signing, TYP_RESULT, strdup("{}"));
	assert_int_equal(scene->unverified, 1);
	assert_int_equal(scene->reason, JOSE_TYP);
}

static void test_unknown_type_is_ignored_if_signed(void **state)
{
	struct scene *scene = *state;
	greet(scene);
	say(scene, scene->signing, "wb-weather+jwt", strdup("{}"));
	assert_int_equal(scene->unverified, 0);
	say(scene, scene->stranger, "wb-weather+jwt", strdup("{}"));
	assert_int_equal(scene->unverified, 1);
}

static void test_acknowledgement(void **state)
{
	struct scene *scene = *state;
	char ids[1][UUID_SIZE] = { SESSION };
	struct ack ack = { (char *)ISSUER, (char *)AGENT, NOW, ids, 1 };
	greet(scene);
	say(scene, scene->signing, TYP_ACK, ack_build(&ack));
	assert_string_equal(scene->acknowledged, SESSION);
	scene->acknowledged[0] = 0;
	ack.agent_id = (char *)SESSION; /* another agent's */
	say(scene, scene->signing, TYP_ACK, ack_build(&ack));
	assert_string_equal(scene->acknowledged, "");
}

static void test_newer_key_set(void **state)
{
	struct scene *scene = *state;
	greet(scene);
	jose_key_free(scene->signing);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &scene->signing), STATUS_OK);
	say_keys_of(scene, scene->root, 4, NOW + 86400);
	assert_int_equal(scene->key_sets, 2);
	say(scene, scene->signing, TYP_REQUEST, strdup("{}"));
	assert_int_equal(scene->requests, 1);
	/* An older one afterwards changes nothing. */
	say_keys_of(scene, scene->root, 3, NOW + 86400);
	assert_int_equal(scene->key_sets, 2);
	assert_int_equal(scene->identity.key_set.version, 4);
	assert_int_equal(session_state(scene->session), SESSION_READY);
}

static void test_expired_keys_verify_nothing(void **state)
{
	struct scene *scene = *state;
	greet(scene);
	scene->identity.key_set.exp = NOW;
	say(scene, scene->signing, TYP_REQUEST, strdup("{}"));
	assert_int_equal(scene->requests, 0);
	assert_int_equal(scene->unverified, 1);
}

static void test_drain(void **state)
{
	struct scene *scene = *state;
	struct drain drain = { (char *)ISSUER, (char *)AGENT, NOW, (char *)AGENT, (char *)"restart" };
	greet(scene);
	say(scene, scene->signing, TYP_DRAIN, drain_build(&drain)); /* another session's */
	assert_int_equal(session_state(scene->session), SESSION_READY);
	drain.session = (char *)SESSION;
	say(scene, scene->signing, TYP_DRAIN, drain_build(&drain));
	assert_int_equal(session_state(scene->session), SESSION_DRAINING);
	assert_true(session_talks(scene->session));
	assert_int_equal(session_send(scene->session, TYP_RESULT, bytes_of_string("{}")), STATUS_OK);
	session_down(scene->session);
	assert_int_equal(session_send(scene->session, TYP_RESULT, bytes_of_string("{}")), STATUS_CHANNEL_CLOSED);
}

/* New keys: which pair greets ------------------------------------------------------------------------------------------------------------- */

static bool greeted_by(struct scene *scene, struct jose_key *key)
{
	struct jose_keys *keys = jose_keys_new();
	struct jose_key *public = NULL;
	static const char *const typs[] = { TYP_HELLO, NULL };
	char *payload = NULL;
	size_t size;
	assert_int_equal(jose_key_public(key, &public), STATUS_OK);
	assert_int_equal(jose_keys_add(keys, public), STATUS_OK);
	bool good = jose_verify(bytes_of_string(scene->sent[scene->sent_count - 1]), typs, keys, &payload, &size, NULL, NULL) == JOSE_OK;
	free(payload);
	jose_keys_free(keys);
	memset(scene->sent, 0, sizeof scene->sent);
	scene->sent_count = 0;
	return good;
}

static void greet_to_the_hello(struct scene *scene)
{
	session_up(scene->session);
	say_keys_of(scene, scene->root, scene->identity.key_set.version + 1, NOW + 86400);
	say_challenge(scene, scene->signing, ISSUER);
}

/* What the agent says of itself has changed: a channel that stands drains, a greeting whose hello is out ends, and where there is none nothing is to be done. */
static void test_another_greeting(void **state)
{
	struct scene *scene = *state;
	session_greet_again(scene->session, "another configuration");
	assert_int_equal(scene->close_code | scene->sent_count, 0);
	greet_to_the_hello(scene);
	session_greet_again(scene->session, "another configuration");
	assert_int_equal(session_state(scene->session), SESSION_DOWN);
	assert_int_equal(scene->close_code, 1001);
	scene->close_code = 0;
	greet(scene);
	unsigned sent = scene->sent_count;
	session_greet_again(scene->session, "another configuration");
	assert_int_equal(session_state(scene->session), SESSION_DRAINING);
	assert_int_equal(scene->sent_count, sent + 1);
	assert_int_equal(scene->close_code, 0);
	session_end_drain(scene->session);
	assert_int_equal(scene->close_code, 1001);
}

static void test_pairs_take_turns(void **state)
{
	struct scene *scene = *state;
	struct identity *identity = &scene->identity;
	assert_int_equal(begin(identity, NOW), STATUS_OK);
	greet_to_the_hello(scene);
	assert_true(greeted_by(scene, identity->signing));
	/* A cut is no refusal. */
	session_down(scene->session);
	greet_to_the_hello(scene);
	assert_true(greeted_by(scene, identity->signing));
	session_refused(scene->session);
	session_down(scene->session);
	greet_to_the_hello(scene);
	assert_true(greeted_by(scene, identity->next.signing));
	session_refused(scene->session);
	session_down(scene->session);
	greet_to_the_hello(scene);
	assert_true(greeted_by(scene, identity->signing));
	/* Before our hello it is not our keys that were refused. */
	session_down(scene->session);
	session_up(scene->session);
	session_refused(scene->session);
	session_down(scene->session);
	greet_to_the_hello(scene);
	assert_true(greeted_by(scene, identity->signing));
	assert_int_equal(scene->next_welcomed, 0);
}

static void wait_at_gate(void *arg)
{
	while (sem_wait(arg) != 0)
		;
}

static void pass(void *arg) {}

/* Whose turn it is is on disk before the hello goes out. */
static void test_the_hello_waits_for_the_disk(void **state)
{
	struct scene *scene = *state;
	struct identity *identity = &scene->identity;
	sem_t gate;
	sem_init(&gate, 0, 0);
	assert_int_equal(begin(identity, NOW), STATUS_OK);
	assert_int_equal(worker_new(scene->base, &identity->store.worker), STATUS_OK);
	greet_to_the_hello(scene);
	assert_int_equal(worker_submit(identity->store.worker, wait_at_gate, pass, &gate), STATUS_OK);
	session_refused(scene->session);
	session_down(scene->session);
	scene->sent_count = 0;
	memset(scene->sent, 0, sizeof scene->sent);
	greet_to_the_hello(scene);
	assert_int_equal(scene->sent_count, 0);
	assert_int_equal(session_state(scene->session), SESSION_CHALLENGE);
	/* One that comes twice is not waited for twice. */
	say_challenge(scene, scene->signing, ISSUER);
	assert_int_equal(session_state(scene->session), SESSION_DOWN);
	greet_to_the_hello(scene);
	assert_int_equal(scene->sent_count, 0);
	sem_post(&gate);
	while (session_state(scene->session) == SESSION_CHALLENGE)
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_true(greeted_by(scene, identity->next.signing));
	worker_free(identity->store.worker);
	identity->store.worker = NULL;
	sem_destroy(&gate);
}

/* Another endpoint is refused with the other pair meanwhile: what was written is not what the hello would be by. */
static void test_the_hello_waits_for_the_last_turn(void **state)
{
	struct scene *scene = *state;
	struct identity *identity = &scene->identity;
	enum status turned;
	sem_t gates[2];
	sem_init(&gates[0], 0, 0);
	sem_init(&gates[1], 0, 0);
	assert_int_equal(begin(identity, NOW), STATUS_OK);
	assert_int_equal(worker_new(scene->base, &identity->store.worker), STATUS_OK);
	greet_to_the_hello(scene);
	while (identity->store.writing) /* the key set */
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(worker_submit(identity->store.worker, wait_at_gate, pass, &gates[0]), STATUS_OK);
	session_refused(scene->session);
	session_down(scene->session);
	scene->sent_count = 0;
	memset(scene->sent, 0, sizeof scene->sent);
	greet_to_the_hello(scene);
	identity_set_turn(identity, false, keep_status, &turned);
	assert_int_equal(worker_submit(identity->store.worker, wait_at_gate, pass, &gates[1]), STATUS_OK);
	sem_post(&gates[0]);
	while (identity->store.again)
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(session_state(scene->session), SESSION_CHALLENGE);
	assert_int_equal(scene->sent_count, 0);
	sem_post(&gates[1]);
	while (session_state(scene->session) == SESSION_CHALLENGE)
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_true(greeted_by(scene, identity->signing));
	worker_free(identity->store.worker);
	identity->store.worker = NULL;
	sem_destroy(&gates[0]);
	sem_destroy(&gates[1]);
}

/* Else the service could take it for a clone that has the former pair alone. */
static void test_the_former_pair_names_the_next(void **state)
{
	struct scene *scene = *state;
	struct hello hello = { 0 };
	assert_int_equal(begin(&scene->identity, NOW), STATUS_OK);
	greet_to_the_hello(scene);
	read_hello(scene, &hello);
	assert_string_equal(hello.next_signing_key, jose_key_id(scene->identity.next.signing));
	hello_clear(&hello);
}

static void test_without_new_keys_a_refusal_changes_nothing(void **state)
{
	struct scene *scene = *state;
	struct hello hello = { 0 };
	greet_to_the_hello(scene);
	read_hello(scene, &hello);
	assert_null(hello.next_signing_key);
	hello_clear(&hello);
	session_refused(scene->session);
	session_down(scene->session);
	memset(scene->sent, 0, sizeof scene->sent);
	scene->sent_count = 0;
	greet_to_the_hello(scene);
	assert_true(greeted_by(scene, scene->identity.signing));
}

static void test_the_welcome_of_the_next_pair_is_told(void **state)
{
	struct scene *scene = *state;
	struct hello hello = { 0 };
	assert_int_equal(begin(&scene->identity, NOW), STATUS_OK);
	enum status turned;
	identity_set_turn(&scene->identity, true, keep_status, &turned);
	greet_to_the_hello(scene);
	/* read_hello verifies by the present key. */
	struct jose_key *present = scene->identity.signing;
	scene->identity.signing = scene->identity.next.signing;
	read_hello(scene, &hello);
	scene->identity.signing = present;
	assert_string_equal(hello.decryption_key, jose_key_id(scene->identity.next.decryption));
	say_welcome(scene, scene->signing, hello.agent_nonce, AGENT);
	assert_int_equal(scene->next_welcomed, 1);
	assert_int_equal(session_state(scene->session), SESSION_READY);
	hello_clear(&hello);
}

static void test_the_answer_to_new_keys(void **state)
{
	struct scene *scene = *state;
	const char *kid = jose_key_id(scene->identity.signing);
	struct rekeyed rekeyed = { (char *)ISSUER, (char *)AGENT, NOW, (char *)AGENT, (char *)kid, (char *)kid };
	greet(scene);
	say(scene, scene->signing, TYP_REKEYED, rekeyed_build(&rekeyed)); /* another session's */
	assert_string_equal(scene->rekeyed, "");
	rekeyed.session = (char *)SESSION;
	say(scene, scene->stranger, TYP_REKEYED, rekeyed_build(&rekeyed));
	assert_string_equal(scene->rekeyed, "");
	assert_int_equal(scene->unverified, 1);
	say(scene, scene->signing, TYP_REKEYED, rekeyed_build(&rekeyed));
	assert_string_equal(scene->rekeyed, kid);
}

#define ROW(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		ROW(test_right_order), ROW(test_frame_while_down), ROW(test_not_enrolled), ROW(test_wrong_order), ROW(test_request_before_welcome), ROW(test_key_set_by_another_root),
		ROW(test_expired_key_set), ROW(test_older_key_set), ROW(test_same_version_with_other_bytes), ROW(test_same_key_set_with_the_other_signature), ROW(test_challenge_by_unknown_key), ROW(test_challenge_by_root),
		ROW(test_challenge_of_another_issuer), ROW(test_welcome_with_another_nonce), ROW(test_welcome_for_another_agent), ROW(test_replayed_welcome), ROW(test_garbage), ROW(test_too_late),
		ROW(test_requests_after_welcome), ROW(test_what_only_agents_say), ROW(test_unknown_type_is_ignored_if_signed), ROW(test_acknowledgement), ROW(test_newer_key_set),
		ROW(test_expired_keys_verify_nothing), ROW(test_drain), ROW(test_another_greeting), ROW(test_pairs_take_turns), ROW(test_the_hello_waits_for_the_disk), ROW(test_the_hello_waits_for_the_last_turn), ROW(test_the_former_pair_names_the_next), ROW(test_without_new_keys_a_refusal_changes_nothing),
		ROW(test_the_welcome_of_the_next_pair_is_told), ROW(test_the_answer_to_new_keys),
	};
	return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
