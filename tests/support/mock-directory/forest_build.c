/* What every domain has before anybody was created in it. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "forest.h"
#include "identity.h"

struct group_row {
	const char *name;
	uint32_t rid;
	bool builtin;         /* S-1-5-32-RID, in CN=Builtin */
	const char *member_of;
	bool protected;       /* MS-ADTS 3.1.1.6.1.2 */
};
static const struct group_row group_rows[] = {
	{ "Administrators", 544, true, NULL, true },
	{ "Users", 545, true, NULL, false },
	{ "Guests", 546, true, NULL, false },
	{ "Account Operators", 548, true, NULL, true },
	{ "Server Operators", 549, true, NULL, true },
	{ "Print Operators", 550, true, NULL, true },
	{ "Backup Operators", 551, true, NULL, true },
	{ "Replicator", 552, true, NULL, true },
	{ "Domain Admins", 512, false, "Administrators", true },
	{ "Domain Users", 513, false, "Users", false },
	{ "Domain Guests", 514, false, "Guests", false },
	{ "Domain Computers", 515, false, NULL, false },
	{ "Domain Controllers", 516, false, NULL, true },
	{ "Schema Admins", 518, false, NULL, true },
	{ "Enterprise Admins", 519, false, "Administrators", true },
	{ "Read-only Domain Controllers", 521, false, NULL, true },
	{ "Key Admins", 526, false, NULL, true },
	{ "Enterprise Key Admins", 527, false, NULL, true },
};
#define GROUP_ROWS (sizeof group_rows / sizeof group_rows[0])

static void add_groups(struct forest *forest, struct object *users, struct object *builtin)
{
	for (size_t i = 0; i < GROUP_ROWS; i++) {
		const struct group_row *row = &group_rows[i];
		struct object *group = forest_add(forest, row->builtin ? builtin : users, "CN", row->name, CLASS_GROUP);
		forest_set_rid(forest, group, row->rid);
		if (row->builtin) {
			static const uint8_t prefix[12] = { 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0 };
			memmove(group->sid + 12, group->sid + 24, 4);
			memcpy(group->sid, prefix, 12);
			group->sid_size = 16;
		}
		if (row->member_of)
			object_join(group, forest_group(forest, row->member_of));
	}
}

void forest_protect(struct forest *forest)
{
	for (size_t i = 0; i < forest->count; i++) {
		struct object *object = forest->objects[i];
		if (object->rid == 500 || object->rid == 502)
			object->admin = true;
		if (!object->account && object->class != CLASS_GROUP)
			continue;
		forest_mark_groups(forest, object);
		for (size_t row = 0; row < GROUP_ROWS; row++) {
			struct object *group = group_rows[row].protected ? forest_group(forest, group_rows[row].name) : NULL;
			/* The domain controllers' own accounts are reached by their primary group only, which SDProp does not follow. */
			if (group && group->rid != 516 && (group->mark == forest->mark || group == object))
				object->admin = true;
		}
	}
}

static struct object *child(struct forest *forest, struct object *parent, const char *name, enum class_kind class)
{
	return forest_add(forest, parent, "CN", name, class);
}

static void add_configuration(struct forest *forest, struct object *controller)
{
	forest->configuration = forest_add_head(forest, arena_printf(&forest->arena, "CN=Configuration,%s", forest->domain->dn), CLASS_CONFIGURATION);
	forest->configuration->configuration = true;
	struct object *site = child(forest, child(forest, forest->configuration, "Sites", CLASS_SITES), "Default-First-Site-Name", CLASS_SITE);
	forest->server = child(forest, child(forest, site, "Servers", CLASS_SERVERS), forest->server_name, CLASS_SERVER);
	object_store_text(forest->server, "dNSHostName", forest->host);
	object_store_text(forest->server, "serverReference", controller->dn);
	forest->ntds = child(forest, forest->server, "NTDS Settings", CLASS_NTDS);
	object_store(forest->ntds, "invocationId", forest->invocation_id, 16);
	object_store_text(forest->ntds, "msDS-isRODC", forest->read_only ? "TRUE" : "FALSE");
	object_store_text(forest->ntds, "options", forest->read_only ? "37" : "1");
	object_store_text(forest->ntds, "msDS-Behavior-Version", "7");
	forest->role_owner = must_strdup(forest->ntds->dn);
	forest->partitions = child(forest, forest->configuration, "Partitions", CLASS_PARTITIONS);
	struct object *crossref = child(forest, forest->partitions, forest->netbios, CLASS_CROSSREF);
	object_store_text(crossref, "nETBIOSName", forest->netbios);
	object_store_text(crossref, "nCName", forest->domain->dn);
	object_store_text(crossref, "dnsRoot", forest->dns_name);
	object_store_text(crossref, "systemFlags", "3");
	struct object *windows = child(forest, child(forest, forest->configuration, "Services", CLASS_CONTAINER), "Windows NT", CLASS_CONTAINER);
	struct object *service = child(forest, windows, "Directory Service", CLASS_SERVICE);
	struct object *policy = child(forest, child(forest, service, "Query-Policies", CLASS_CONTAINER), "Default Query Policy", CLASS_QUERY_POLICY);
	object_store_text(policy, "lDAPAdminLimits", arena_printf(&forest->arena, "MaxConnIdleTime=%u", forest->idle_seconds));
	static const char *const limits[] = { "InitRecvTimeout=120", "MaxConnections=5000", "MaxPageSize=1000", "MaxQueryDuration=120", "MaxReceiveBuffer=10485760" };
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
		object_store_text(policy, "lDAPAdminLimits", limits[i]);
}

void forest_build(struct forest *forest, const char *domain_sid)
{
	struct arena *arena = &forest->arena;
	char *dn = arena_printf(arena, "%s", "");
	for (const char *label = forest->dns_name; *label;) {
		size_t size = strcspn(label, ".");
		dn = arena_printf(arena, "%s%sDC=%.*s", dn, *dn ? "," : "", (int)size, label);
		label += size + (label[size] == '.');
	}
	forest->next_rid = 1103;
	forest->usn = 12000;
	forest->domain = forest_add_head(forest, dn, CLASS_DOMAIN);
	forest->domain->policy = must_alloc(sizeof *forest->domain->policy);
	uint8_t sid[28];
	forest->domain->sid_size = (uint8_t)sid_from_text(value_of(domain_sid), sid);
	memcpy(forest->domain->sid, sid, 24);
	memcpy(forest->domain_sid, sid, 24);
	struct object *users = child(forest, forest->domain, "Users", CLASS_CONTAINER);
	struct object *builtin = child(forest, forest->domain, "Builtin", CLASS_BUILTIN);
	child(forest, forest->domain, "Computers", CLASS_CONTAINER);
	child(forest, forest->domain, "Managed Service Accounts", CLASS_CONTAINER);
	struct object *system = child(forest, forest->domain, "System", CLASS_CONTAINER);
	child(forest, system, "AdminSDHolder", CLASS_CONTAINER);
	child(forest, system, "Password Settings Container", CLASS_PSO_CONTAINER);
	struct object *controllers = forest_add(forest, forest->domain, "OU", "Domain Controllers", CLASS_UNIT);
	add_groups(forest, users, builtin);
	struct object *controller = child(forest, controllers, forest->server_name, CLASS_COMPUTER);
	struct account *account = forest_add_account(forest, controller, arena_printf(arena, "%s$", forest->server_name));
	account->control = forest->read_only ? 0x5001000 : UAC_SERVER | 0x80000;
	account->password_last_set = forest_now(forest);
	forest_set_rid(forest, controller, 1000);
	forest->next_rid = 1103;
	object_store_text(controller, "dNSHostName", forest->host);
	add_configuration(forest, controller);
}
