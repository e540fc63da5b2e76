/* ad_names: which names an Active Directory domain goes by, as the forest's configuration has them: its DNS and NetBIOS name (crossRef, MS-ADTS 6.1.1.2.1.1) and the forest's
 * additional UPN suffixes. Pure. */
#ifndef AGENT_DIRECTORY_AD_NAMES_H
#define AGENT_DIRECTORY_AD_NAMES_H

#include "agent/directory/flavor.h"

/* The search for both; STATUS_LOCAL_INPUT where the rootDSE names no configuration. */
enum status ad_names_search(const struct root_facts *root, struct ldap_search *ret_search) MUST_USE;
/* Each name in one of its entries. */
void ad_names_read(LDAP *ldap, LDAPMessage *message, void (*visit)(const char *name, void *arg), void *arg);
/* "corp.example.com" as "DC=corp,DC=example,DC=com"; false where it does not fit. */
bool ad_names_context(const char *domain, char *out, size_t capacity);

#endif
