//! The functions of NIXL's C API that this crate reaches through nixl-sys: one that is missing would abort the process
//! at its first call, so they are looked up before. Data only.

use std::ffi::CStr;

/// Every version of the C API has it.
pub(super) const ANY_VERSION: &CStr = c"nixl_capi_create_agent";

/// All that is called. The first three came with 1.5 (1.4.1 lacks them); the rest are the calls of `session`.
pub(super) const NEEDED: &[&CStr] = &[
    c"nixl_capi_prep_mem_view_remote",
    c"nixl_capi_create_remote_dlist",
    c"nixl_capi_opt_args_set_custom_param",
    c"nixl_capi_create_configured_agent",
    c"nixl_capi_destroy_agent",
    c"nixl_capi_get_plugin_params",
    c"nixl_capi_destroy_params",
    c"nixl_capi_mem_list_size",
    c"nixl_capi_mem_list_get",
    c"nixl_capi_destroy_mem_list",
    c"nixl_capi_create_backend",
    c"nixl_capi_destroy_backend",
    c"nixl_capi_get_local_md",
    c"nixl_capi_load_remote_md",
    c"nixl_capi_invalidate_remote_md",
    c"nixl_capi_create_reg_dlist",
    c"nixl_capi_reg_dlist_clear",
    c"nixl_capi_reg_dlist_add_desc",
    c"nixl_capi_destroy_reg_dlist",
    c"nixl_capi_register_mem",
    c"nixl_capi_deregister_mem",
    c"nixl_capi_create_xfer_dlist",
    c"nixl_capi_xfer_dlist_clear",
    c"nixl_capi_xfer_dlist_add_desc",
    c"nixl_capi_destroy_xfer_dlist",
    c"nixl_capi_create_opt_args",
    c"nixl_capi_opt_args_add_backend",
    c"nixl_capi_opt_args_set_notif_msg",
    c"nixl_capi_opt_args_set_has_notif",
    c"nixl_capi_destroy_opt_args",
    c"nixl_capi_create_xfer_req",
    c"nixl_capi_post_xfer_req",
    c"nixl_capi_get_xfer_status",
    c"nixl_capi_release_xfer_req",
    c"nixl_capi_destroy_xfer_req",
    c"nixl_capi_gen_notif",
    c"nixl_capi_create_notif_map",
    c"nixl_capi_get_notifs",
    c"nixl_capi_notif_map_size",
    c"nixl_capi_notif_map_get_agent_at",
    c"nixl_capi_notif_map_get_notifs_size",
    c"nixl_capi_notif_map_get_notif",
    c"nixl_capi_destroy_notif_map",
];
